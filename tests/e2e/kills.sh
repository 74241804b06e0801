# Either side killed: the job killed leaves a profile, the recorder killed leaves the job and a profile.
. "$(dirname "$0")/common.bash"

expect 137 moeprof run -o a.moeprof -- "$guest" steps=50 kill=9
said "ended by signal 9"
json a.moeprof 'r["step"]["recorded"] == 10 and r["run"]["end"] == "killed" and r["run"]["is_complete"]'
json a.moeprof 'any("process was killed" in n for n in r["notes"])'

# The recorder dies within the 6 s of a job of 100 steps. The job ends by itself, with its code.
(
    "$B/moeprof" run -o b.moeprof -- bash -c "'$guest' steps=100; echo \$? > code" 2>kill.err &
    echo $! >pid
)
pid=$(cat pid) # no child of ours, so that the shell does not tell its end
under_way() { (json b.moeprof 'r["step"]["recorded"] >= 5 and any("still being recorded" in n for n in r["notes"])'); }
wait_for 10 under_way
kill -9 "$pid"
mkdir alone
cp b.moeprof alone
sleep 5 # what was written a moment ago counts as live
json b.moeprof '100 > r["step"]["recorded"] >= 5 and not r["run"]["is_complete"]'
json b.moeprof 'any("cut short" in n for n in r["notes"])'
# Its log did not come along: one sentence, and the way out of it works.
json alone/b.moeprof 'len(r["notes"]) == 1 and "b.moeprof-wal" in r["notes"][0] and "copy it beside" in r["notes"][0]'
json alone/b.moeprof '"nothing of the run" in r["mfu"]["why_not"]'
cp b.moeprof-wal alone
json alone/b.moeprof '100 > r["step"]["recorded"] >= 5 and r["mfu"]["value"] > 0.1'
wait_for 30 test -s code
[ "$(cat code)" = 0 ] || fail "the job ended with $(cat code)"

# A recorder that sleeps is lapped: what was lost is counted, and the gap stands in the file. Here it
# wakes after the job has ended, with the newest records still in the ring.
"$B/moeprof" run -o c.moeprof -- bash -c "'$guest' steps=5; until [ -e asleep ]; do sleep 0.05; done; '$guest' steps=400 fast; echo >lapped" 2>lap.err &
pid=$!
wait_for 10 test -s c.moeprof
kill -STOP $pid
touch asleep
wait_for 30 test -s lapped
kill -CONT $pid
wait $pid || fail "a lapped recording is no failure"
f=$(ls c.pid*.moeprof)
json "$f" 'r["coverage"]["dropped_records"] > 0 and any("records were lost" in n for n in r["notes"])'
[ "$(sql "$f" 'SELECT sum(lost) FROM chunk')" -gt 0 ] || fail "no gap in the chunks"

# A signal sent to the recorder alone reaches the job, whose end it then reports.
"$B/moeprof" run -o d.moeprof -- "$guest" steps=200 2>term.err &
pid=$!
wait_for 10 test -s d.moeprof
kill -TERM $pid
code=0
wait $pid || code=$?
[ $code = 143 ] || fail "exit code $code after SIGTERM"
json d.moeprof 'r["run"]["is_complete"]'
