# Ranks, grandchildren, exec, a launcher that leaves before its job; names of files.
. "$(dirname "$0")/common.bash"

expect 0 moeprof run -o r.moeprof -- bash -c "'$guest' steps=8 rank=1 world=2 & '$guest' steps=8 rank=0 world=2 & wait"
json r.moeprof 'r["run"]["rank"] == 0 and r["run"]["world_size"] == 2'
json r.rank1.moeprof 'r["run"]["rank"] == 1'
moeprof report --json r.moeprof r.rank1.moeprof | python3 -c 'import json, sys; sys.exit(len(json.load(sys.stdin)) != 2)'
[ "$(moeprof report r.moeprof r.rank1.moeprof | grep -c '^MFU')" = 2 ] || fail "two files, two reports"
# A rank that is started again does not cost what it recorded before.
expect 0 moeprof run -o again.moeprof -- bash -c "'$guest' steps=8 rank=1 world=2; '$guest' steps=5 rank=1 world=2"
json again.rank1.moeprof 'r["step"]["recorded"] == 8'
json "$(ls again.rank1.pid*.moeprof)" 'r["step"]["recorded"] == 5'

expect 0 moeprof run -o e.moeprof -- bash -c "exec '$guest' steps=5"
json e.moeprof 'r["step"]["recorded"] == 5'

# Two jobs one after the other under one launcher: the second gets a mark.
expect 0 moeprof run -o t.moeprof -- bash -c "'$guest' steps=4; '$guest' steps=4"
[ "$(ls t.*moeprof | wc -l)" = 2 ] || fail "two jobs, not: $(ls t.*)"

expect 0 moeprof run -o l.moeprof -- bash -c "'$guest' steps=30 & until [ -s l.moeprof ]; do sleep 0.05; done"
said "still trains"
json l.moeprof 'r["step"]["recorded"] == 30'

# Without -o: a name of job, date and process, in this folder.
expect 0 moeprof run -- "$guest" steps=4
ls moeprof-fake_guest-2*-*.moeprof >/dev/null || fail "no default name: $(ls)"

# Guests of others are not ours.
"$guest" steps=60 & other=$!
expect 0 moeprof run -o o.moeprof -- "$guest" steps=5
[ "$(ls o.*moeprof | wc -l)" = 1 ] || fail "recorded a job of somebody else"
kill $other && wait $other 2>/dev/null || true

# Whatever the job's environment, the guest's own variables arrive.
expect 1 env MOEPROF="other=1,$MOEPROF,session=x" "$B/moeprof" run --preload -- bash -c 'echo "$MOEPROF|$CUDA_INJECTION64_PATH|$LD_PRELOAD" > env'
grep -q "^dir=$T/job,session=run-[0-9a-f-]*,other=1|$B/libmoeprof.so|$B/libmoeprof.so\$" env || fail "environment: $(cat env)"
