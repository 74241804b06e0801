# What top does to a job, and on disk: swap there and back after a question, refused, taken back, never with
# --readonly; a report of a recorded job, of one that is not, of a recording; a before/after followed live
# and ended.
. tests/e2e/top_lib.bash
have_tmux
[ -e "$B/libmoeprof.so" ] || fail "no libmoeprof.so in $B"
PEER=$PWD/$B/fake_ab
[ -x "$PEER" ] || { PEER=$WORK/fake_ab; ${CC:-cc} -std=c11 -D_GNU_SOURCE -I. -O1 -o "$PEER" tests/mock/fake_ab.c \
    profiler/core/shm*.c profiler/core/base.c profiler/core/wire.c profiler/core/sock.c -lm || fail "cannot build fake_ab"; }

peer() { # ARGS...: starts it; $JOB
    "$PEER" pace=20000 "$@" >/dev/null &
    JOB=$!
    JOBS="$JOBS $JOB"
    disown
}
page_of() { # PATTERN: the only such page is there and whole
    set -- $1
    [ $# = 1 ] && tail -c 20 "$1" | grep -q '</html>' || fail "no page, or more: $*"
}
mkdir "$WORK/cwd"
start_shell 100 30
keys "cd $WORK/cwd; clear" Enter

peer
keys "$TOP top $JOB" Enter
see "PID $JOB .*recording"
keys a
see 'Run the experts of process'
see 'all 2 layers; now grouped_mm'
keys n
gone 'Swap the experts'
keys a
see 'y yes'
keys y
see 'moeprof runs from step [0-9]+ on'
see 'Parity passed on 2 layers; the furthest'
keys Enter
gone 'Parity passed'
keys a
see "as 'moeprof'. Give it back"
keys y
see "own experts \(grouped_mm\) run again"
keys Enter
keys a
see 'Run the experts'
kill -STOP "$JOB"
keys y
see 'is asked; it takes effect when a step ends'
keys 2
see 'Tokens by layer' # the display goes on meanwhile
keys Escape
see 'Taking it back'
kill -CONT "$JOB"
see '(taken back: nothing was swapped|run)'
keys Enter
kill -STOP "$JOB"
keys a
see 'does not answer: is it stopped'
kill -CONT "$JOB"
keys Enter 1

# Nobody records it: what the ring holds becomes a profile and a page.
keys w
see 'Wrote .*\.html'
page_of "$WORK/cwd/moeprof-$JOB-*.html"
"$TOP" report --json "$WORK"/cwd/moeprof-"$JOB"-*.moeprof | grep -q '"count": [1-9]' || fail "no step of the ring was recorded"
keys q
see '^ready>'
kill "$JOB"

peer parity-fail
keys "clear; $TOP top $JOB" Enter
see "PID $JOB .*recording"
keys a
see 'y yes'
keys y
see 'Not swapped'
see 'the numbers differ: layer 1: dgate_up'
keys q
see '^ready>'
keys "clear; $TOP top --readonly $JOB" Enter
see "PID $JOB .*recording"
keys a
see 'started with --readonly'
keys Enter x
gone readonly
keys q
see '^ready>'
kill "$JOB"

# The job dies while a question about it stands.
peer
keys "clear; $TOP top $JOB" Enter
see "PID $JOB .*recording"
keys a
see 'y yes'
kill -9 "$JOB"
see 'the job closed the connection'
see 'killed'
keys q
see '^ready>'

# A before/after, from its beginning to its end by a key; its row of the tabs is there only where it is.
"$TOP" ab --blocks 40 -o "$WORK/watched.moeprof" -- bash -c "echo \$\$ >$WORK/pid; exec $PEER pace=4000" >"$WORK/ab.out" 2>&1 &
AB=$!
keys "clear; rm -f *; $TOP top" Enter
see 'PID .*recording'
JOB=$(cat "$WORK/pid")
JOBS="$JOBS $JOB"
see '6 A/B'
keys 6
see 'block [0-9]+ of 80'
see '1\.4[0-9]+ \(1\.[34]'
see 'parity: 2 of 2 layers agree'
keys a
see 'A before/after is under way'
keys Enter w
see 'Wrote .*watched-.*\.html'
page_of "$WORK/cwd/watched-*.html"
grep -q 'is faster than' "$WORK"/cwd/watched-*.html || fail "the page of a before/after has no verdict"
keys Enter x
see 'End it after [0-9]+ of 80 blocks'
keys n
see 'block [0-9]+ of 80'
keys x
see 'End it after'
keys y
see 'ended early'
wait "$AB" || fail "moeprof ab: exit $?: $(tail -3 "$WORK/ab.out")"
grep -q 'the job goes on with its own experts' "$WORK/ab.out" || fail "ab does not say that the job goes on"
kill -0 "$JOB" || fail "the job was ended"
keys q
see '^ready>'
kill "$JOB"

# A recording: the same screen, a page, and nothing to swap.
keys "clear; rm -f *; $TOP top --replay $WORK/watched.moeprof --speed 10000" Enter
see 'watched.moeprof .*replay'
keys 6
see 'ended early: stopped in block'
keys a
see 'This is a recording'
keys Enter w
see 'Wrote .*watched-'
page_of "$WORK/cwd/watched-*.html"
keys q
see '^ready>'
chmod 500 "$WORK/cwd"
if [ ! -w "$WORK/cwd" ]; then # root writes everywhere
    keys "clear; $TOP top --replay $WORK/watched.moeprof --speed 10000" Enter
    see 'replay'
    keys w
    see 'cannot write'
    keys q
    see '^ready>'
fi
chmod 700 "$WORK/cwd"
