# A job with stand-ins for torch, CUPTI and the driver, and what can go wrong in it: the training goes on,
# and what is not recorded is said.
. "$(dirname "$0")/common.bash"
job="$B/mock/job" replay="$B/mock/replay" dump="$B/dump_shm"

# start JOB-OPTIONS..: in the background; `ended CODE` waits for it and leaves what it published in $P.*
start() {
    rm -rf "$T"/job/*
    MOEPROF="dir=$T/job,steps=all${more:-}" "$job" "$@" >job.out 2>job.err &
    P=$!
}
ended() {
    local code=0
    wait $P || code=$?
    [ $code = "$1" ] || fail "the job ended with $code, not $1: $(cat job.err)"
    [ ! -s job.err ] || [ -n "${loud:-}" ] || fail "the job said: $(cat job.err)"
    if [ -e "job/$P.shm" ]; then
        "$dump" job $P >dump.out
        "$replay" cells job $P >cells.out
    fi
}
has() { grep -qE "$1" dump.out cells.out || fail "not there: $1 in $(cat dump.out; grep ^step cells.out)"; }

# Nothing wrong: exact counts, nothing lost, its exit code.
start steps=5 exit=3
ended 3
has '^state 4 '
has 'launches 1025 records 1035 dropped 0 lost 0 unmatched 0'
[ "$(grep -c '^step .* launches 205 records 205 ' cells.out)" = 5 ] || fail "five whole steps"

# Bursts: CUPTI is left in between and met again; what is traced is whole, and nothing else is counted.
rm -rf "$T"/job/*
MOEPROF="dir=$T/job,steps=2/2/4" "$job" steps=80 pause=20 >job.out 2>job.err &
P=$!
ended 0
has 'CUPTI is met and left in'
has 'dropped 0 lost 0 unmatched 0 .* names 7'
[ "$(grep -c '^step .* flags 0 launches 205 records 205 ' cells.out)" -ge 5 ] || fail "five whole steps in bursts"
! grep -E '^step .* flags 4 ' cells.out || fail "a traced step that lacks records"

# Steps that mean nothing: said once, and all else is as without them.
for odd in abc 2/2 0/4/28 2/2/4x allx; do
    rm -rf "$T"/job/*
    MOEPROF="dir=$T/job,steps=$odd" "$job" steps=3 exit=3 >job.out 2>job.err &
    P=$!
    ended 3
    has '^state 4 '
    [ "$(grep -cF "MOEPROF: steps='$odd' is neither 'all' nor FIRST/ON/OFF" dump.out)" = 1 ] || fail "nothing said of steps=$odd: $(cat dump.out)"
done
start steps=3
ended 0
! grep -q 'MOEPROF: steps' dump.out || fail "steps=all is said to mean nothing"

# CUPTI is another tool's: its name, and steps, tokens and routing are recorded all the same.
start steps=6 held="Nsight Systems" pause=50
ended 0
has "feature 0 state 2 CUPTI is held by 'Nsight Systems': no times of the GPU; end it to have them"
has '^state 4 '
has '^step 3 flags 8 launches 0 records 0 '
! grep -q '^step 3 flags [^8]' cells.out || fail "an unwatched step with times"
# No driver, no CUPTI.
start steps=3 cuda=0
ended 0
has 'feature 0 state 2 no CUDA driver in this process'
start steps=3 cuda=0 torch=0
ended 0
has 'feature 0 state 2 no (libcupti|CUDA driver) in this process'

# Another profiler inside the job: it gets every record of its step, and we go on after it.
start steps=8 kineto=2 pause=300
ended 0
[ "$(cat job.out)" = "kineto kernels 205 others 2 unknown 0" ] || fail "the other profiler saw: $(cat job.out)"
has 'torch.profiler records from step 2 on'
has 'torch.profiler is done'
has '^step 7 flags 1 launches 205 records 205 '
has '^step 1 flags [01] launches 205 records 205 '
grep -E '^step 2 flags (2|6) ' cells.out >/dev/null || fail "step 2 is not marked as aside"

# A fork after the guest is alive: the child is silent.
start steps=4 fork=2
ended 0
[ "$(grep -c 'launches 205 records 205' cells.out)" = 4 ] || fail "the parent's steps"
! grep -q 'a fork' dump.out || fail "the child wrote to its parent's file"
[ "$(ls job)" = "$P.shm" ] || fail "the child left a file: $(ls job)"

# Killed while recording: what was published is there.
start steps=400 pause=20 kill=100
{ ended 137; } 2>/dev/null
has '^step 50 flags 0 launches 205 records 205 '
has '^state 1 '

# CUPTI hangs when the process ends: 200 ms, then it ends without us.
for try in $(seq 5); do # a busy machine may be slow, not each time
    start steps=2 hang=5000
    t=${EPOCHREALTIME/./}
    ended 0
    took=$(((${EPOCHREALTIME/./} - t) / 1000))
    [ $took -gt 1500 ] || break
done
[ $took -le 1500 ] || fail "$took ms to end"

# No place for the file: one sentence on stderr, the job's exit code, nothing left behind.
loud=1
full() { # SENTENCE
    MOEPROF="dir=$where,steps=all" "$job" steps=2 exit=5 nowait=1 wait=1000 >job.out 2>job.err &
    P=$!
    ended 5
    [ "$(wc -l <job.err)" = 1 ] && grep -q "this job is not recorded: .*$1" job.err || fail "said: $(cat job.err)"
}
where=/proc/no/such/place full ""
mkdir -m 777 open
where=$T/open full "open"
where=$T/dump.out full ""
mkdir -m 700 tiny
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=64k,mode=700 tmpfs tiny 2>/dev/null; then
    where=$T/tiny full "" || { umount tiny; exit 1; }
    [ -z "$(ls -A tiny)" ] || fail "left in a full directory: $(ls -A tiny)"
    umount tiny
fi
(ulimit -f 64; where=$T/job full "")
[ ! -e job/$P.shm ] || fail "a file over the limit"

# A trace that cannot be written: said, and recording goes on without it.
more=",trace=$T/dump.out"
start steps=2
ended 0
has "the trace file .*dump.out' cannot be made"
has '^step 1 flags [01] launches 205 records 205 '
