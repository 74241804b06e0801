# Where nothing trains, the guest is not there: no file, no output, no change of exit codes, no delay.
. "$(dirname "$0")/common.bash"
so="$B/libmoeprof.so" host="$B/mock/host"

no_file() { [ -z "$(ls -A "$T/job")" ] || fail "left in the job directory after $1: $(ls -A "$T/job")"; }
# under CODE COMMAND..: preloaded and not, the same output and exit code, not a word more
under() {
    local want=$1 code=0
    shift
    "$@" >plain.out 2>plain.err || true
    LD_PRELOAD="$so" "$@" >pre.out 2>pre.err || code=$?
    [ "$code" = "$want" ] || fail "exit code $code under the guest, not $want: $*"
    cmp plain.out pre.out && cmp plain.err pre.err || fail "output differs: $*"
    no_file "$*"
}
under 0 ls /
under 2 ls /no/such/place
under 7 sh -c 'exit 7'
under 0 sh -c 'echo out; echo err >&2'
under 137 sh -c "kill -9 \$\$" 2>/dev/null
under 0 python3 -c 'import os; pid = os.fork(); pid and os.waitpid(pid, 0); print("x" * (pid == 0))'
under 0 sh -c 'exec ls /'

# 200 short processes, as one `axolotl train` starts: with and without, and what each costs.
many() { sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do for j in 1 2 3 4 5 6 7 8 9 10; do /bin/true || exit 1; done; done'; }
ms() { local t=${EPOCHREALTIME/./}; "$@"; echo $(((${EPOCHREALTIME/./} - t) / 1000)); }
preloaded() { LD_PRELOAD="$so" many; }
least=1000000
for try in $(seq 10); do # a busy machine may be slow, not each time
    plain=$(ms many) with=$(ms preloaded)
    least=$((with - plain < least ? with - plain : least))
    [ $least -gt 600 ] || break
done
no_file "200 processes"
[ $least -le 600 ] || fail "200 processes took $least ms longer: more than 3 ms each"

# Processes that initialise CUDA, or are attached to, but are no Python or have no torch.
host_says() { # EXPECTED WORDS..
    local want=$1
    shift
    MOEPROF="dir=$T/job" expect 0 timeout 10 "$host" "$so" "$@"
    [ "$(tr '\n' ' ' <run.out)" = "$want" ] && [ ! -s run.err ] || fail "'$*' said: $(cat run.out run.err)"
    no_file "$*"
}
host_says "init 1 " init work
host_says "attach 0 " attach
host_says "attach 0 attach 0 init 1 " attach work attach init threads
host_says "attach 0 " attach fork work fork
host_says "init 1 exec " init work exec
# No thread for the agent: a code, not a crash at exit.
MOEPROF="dir=$T/job" expect 0 timeout 10 "$host" "$so" full attach attach init
[ "$(tr '\n' ' ' <run.out)" = "attach -2 attach -7 init 1 " ] || fail "without a thread: $(cat run.out run.err)"
no_file "no thread"

MOEPROF="dir=$T/job" expect 0 python3 -c "
import ctypes, time
assert ctypes.PyDLL('$so').moeprof_attach(None) == 0
time.sleep(0.5)
print(sum(range(10)))"
[ "$(cat run.out)" = 45 ] && [ ! -s run.err ] || fail "Python without torch: $(cat run.out run.err)"
no_file "Python without torch"

# It leaves at once when the process ends: at most 200 ms.
for try in $(seq 10); do
    took=$(ms "$host" "$so" attach | tail -1)
    [ "$took" -gt 300 ] || break
done
[ "$took" -le 300 ] || fail "$took ms to attach and end"
