# Who may include whom (design: rooms and what each may include), and where vendor headers may stand.
# Prints each violation; exit 1 when there is one.
bad=0
complain() { echo "layers: $1" >&2; bad=1; }

check() { # room, allowed prefixes (regex alternatives)
    for f in $(git ls-files "$1/*.c" "$1/*.h" "$1/*.cu" "$1/*.cuh"); do
        grep -ho '^#include "[^"]*/[^"]*"' "$f" | sed 's/#include "\(.*\)"/\1/' | while read -r inc; do
            echo "$inc" | grep -Eq "^($2)" || echo "$f includes $inc"
        done
    done
}
out=$(
    check profiler/core 'profiler/core/'
    check profiler/cli 'profiler/(cli|dash|core)/|report/'
    check profiler/dash 'profiler/(dash|core)/|report/'
    check injector 'injector/|profiler/core/|kernels/moe_kernels\.h'
    check kernels 'kernels/'
    check report 'report/|profiler/core/'
)
[ -z "$out" ] || complain "$out"

home() { # header, files that may include it (regex)
    out=$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' | xargs grep -ln "^#include <$1" 2>/dev/null | grep -Ev "^($2)")
    [ -z "$out" ] || complain "<$1> belongs to $2, not: $out"
}
home 'cupti' 'tests/unit/test_cupti_abi\.c|tests/mock/'
home 'cuda' 'kernels/|tests/(gpu|emu)/'
home 'Python\.h' 'none'
home 'ncurses\.h' 'profiler/dash/term\.c'
home 'curl/' 'report/push\.c'
home 'sqlite3\.h' 'report/profile_|report/profile\.|tests/'
home 'zstd\.h' 'report/|tests/'
home 'jansson\.h' 'report/|profiler/cli/|tests/'
exit $bad
