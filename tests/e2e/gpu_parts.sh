# tests/gpu/all.sh: parts that end well, fail, take too long, are left out; none is done twice.
. "$(dirname "$0")/common.bash"

cat >table <<'E2'
# name s command
good   9 echo once >>"$OUT/count"
bad    9 echo the reason; exit 4
slow   1 sleep 9
later  90 true
E2
said_out() { grep -qE -- "$1" run.out || fail "not said: $1"; }
parts() { (cd "$root" && B="$B" bash tests/gpu/all.sh "$@"); }

expect 1 parts 20 "$T/out" "$T/table"
for text in 'good .* ok' 'bad .* FAIL, exit code 4' 'the reason' 'slow .* FAIL: took too long' 'later .* left out: needs 90 s of'; do
    said_out "$text"
done
expect 0 parts 100 "$T/out" "$T/table" good later
said_out 'good .* done before, exit code 0'
said_out 'later .* ok'
[ "$(wc -l <out/count)" = 1 ] || fail "a part was done twice"
expect 1 parts 100 "$T/out" "$T/table" bad # what failed before is no success now
said_out 'bad .* done before, exit code 4'
expect 3 parts 0 "$T/none" "$T/table"
