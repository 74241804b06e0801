# Every test that needs no GPU. Sets up what is missing, builds, tests; stops at the first failure.
# B: build folder. MOEPROF_NO_SETUP=1: install nothing.
set -e
B=${B:-build}
export B
say() { printf '%s\n' "== $1"; }

if [ -z "$MOEPROF_NO_SETUP" ]; then
    say "set-up"
    sh tests/tools/setup.sh
fi
say "build (warnings are errors)"
make B="$B" WERROR=1 all
say "layers"
make -s B="$B" check-layers
say "guest library"
make -s B="$B" check-guest
say "unit tests"
make -s B="$B" WERROR=1 unit
say "end to end"
make -s B="$B" "$B/fake_guest" "$B/dump_shm" "$B/flops_tool"
for t in tests/e2e/*.sh; do
    B="$B" bash "$t" >"$B/e2e.log" 2>&1 || { cat "$B/e2e.log"; echo "failed: $t"; exit 1; }
    sed -n "s|^ *skip|  not tested, ${t##*/}: skip|p" "$B/e2e.log"
done
say "Python bridge"
B="$B" bash tests/bridge/run.sh
say "all passed"
