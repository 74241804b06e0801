# top when things end: the job is killed while watched; top itself gets TERM, ABRT, SEGV and HUP. Each
# time the terminal is a terminal again.
. tests/e2e/top_lib.bash
have_tmux
build_fake

check_terminal() {
    see "^ready> *$|ready>"
    gone 'Overview'
    keys "clear; stty -a | grep -c -w icanon; tput cnorm" Enter
    see '^1$'
    keys clear Enter
}

start_shell 90 26
start_job steps=100000 layers=4 experts=16
keys "$TOP top" Enter
see "PID $JOB .*recording"
see 'Step [0-9]+'
kill -9 "$JOB"
see "PID $JOB .*killed"
see 'Step [0-9]+:' # what was known stays on screen
keys q
check_terminal

start_job steps=100000 layers=4 experts=16
for sig in TERM HUP ABRT SEGV; do
    keys "(echo \$BASHPID > $WORK/top.pid; exec $TOP top)" Enter
    see "PID $JOB .*recording"
    kill -"$sig" "$(cat "$WORK/top.pid")"
    check_terminal
done

# A job that ends by itself.
start_job steps=12 layers=2 experts=8
keys "$TOP top $JOB" Enter
see "PID $JOB .*(recording|ended)"
see "PID $JOB .*ended"
keys q
check_terminal
