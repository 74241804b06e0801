# The man page and --help name the same options, and every command of the table.
. "$(dirname "$0")/common.bash"

page=$(sed 's/\\-/-/g' "$root/profiler/cli/moeprof.1")
moeprof --help | grep -oE '^  moeprof [a-z]+' | while read -r _ command; do
    echo "$page" | grep -q "^\.SS $command\$" || fail "the man page lacks '$command'"
    moeprof "$command" --help | grep -oE -- '(^|[ [])--?[a-z][a-z-]*' | tr -d ' [' | sort -u | while read -r option; do
        [ "$option" = --help ] && continue
        echo "$page" | grep -q -- "$option\b" || fail "the man page lacks '$option' of '$command'"
    done
done
echo "$page" | grep -q "moeprof $(moeprof --version | cut -d' ' -f2)" || fail "the man page is of another version"
