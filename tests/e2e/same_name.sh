# Two recordings of one name at a time: the first keeps its file, the second gets a mark, both jobs run.
. "$(dirname "$0")/common.bash"

no_locks() { ! ls ./*-lock >/dev/null 2>&1 || fail "left behind: $(ls ./*-lock)"; }
# begin FILE ARGS..: records in the background, pid in $first, and waits for its file.
begin() {
    "$B/moeprof" run -o "$@" 2>first.err &
    first=$!
}

begin a.moeprof -- "$guest" steps=60
wait_for 10 test -s a.moeprof
expect 0 moeprof run -o a.moeprof -- "$guest" steps=5
second=$(ls a.pid*.moeprof)
said "another run is being recorded into 'a.moeprof': this one goes into '$second'"
said "recorded 5 steps"
kill -0 $first || fail "the first recording was over too early for this test"
wait $first || fail "the first recording failed"
json a.moeprof 'r["step"]["recorded"] == 60 and r["run"]["is_complete"]'
json "$second" 'r["step"]["recorded"] == 5 and r["run"]["is_complete"]'
no_locks
# What has ended is replaced, as ever.
expect 0 moeprof run -o a.moeprof -- "$guest" steps=4
json a.moeprof 'r["step"]["recorded"] == 4'

# The file of a rank.
begin r.moeprof -- "$guest" steps=60 rank=1 world=2
wait_for 10 test -s r.rank1.moeprof
expect 0 moeprof run -o r.moeprof -- "$guest" steps=5 rank=1 world=2
json "$(ls r.rank1.pid*.moeprof)" 'r["step"]["recorded"] == 5'
wait $first || fail "the first recording failed"
json r.rank1.moeprof 'r["step"]["recorded"] == 60'
no_locks

# A recorder that was killed holds nothing, though its job goes on.
(
    "$B/moeprof" run -o k.moeprof -- "$guest" steps=100 2>kill.err &
    echo $! >pid
)
wait_for 10 test -s k.moeprof
kill -9 "$(cat pid)"
expect 0 moeprof run -o k.moeprof -- "$guest" steps=5
json k.moeprof 'r["step"]["recorded"] == 5'
no_locks

# A file system without locks, as the recorder sees it: recorded all the same.
cat >nolock.c <<'C'
#include <errno.h>
int flock(int fd, int op) { (void)fd, (void)op; errno = ENOLCK; return -1; }
C
${CC:-cc} -shared -fPIC -o nolock.so nolock.c
expect 0 env LD_PRELOAD="$T/nolock.so" "$B/moeprof" run -o n.moeprof -- "$guest" steps=5
json n.moeprof 'r["step"]["recorded"] == 5'
no_locks
