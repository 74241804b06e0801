# For the top_*.sh scripts: a fake job, a terminal to look into, and waiting for what should appear.
# Sourced; alone it does nothing. B: build folder.
B=${B:-build}
TOP=$PWD/$B/moeprof
WORK=$(mktemp -d)
export XDG_RUNTIME_DIR=$WORK/run LC_ALL=C.UTF-8
mkdir -m 700 "$XDG_RUNTIME_DIR"
unset MOEPROF NO_COLOR TMUX
SERVER=moeprof-top-$$
JOBS=

have_tmux() { command -v tmux >/dev/null || { echo "skipped: no tmux here"; exit 0; }; }
tm() { tmux -L "$SERVER" -f /dev/null "$@"; }

clean_up() {
    tmux -L "$SERVER" kill-server 2>/dev/null
    for pid in $JOBS; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$WORK"
}
trap clean_up EXIT

fail() {
    echo "FAILED: $1"
    [ -n "$2" ] && screen
    exit 1
}

build_fake() {
    make -s B="$B" "$B/fake_guest" 2>/dev/null || ${CC:-cc} -std=c11 -D_GNU_SOURCE -I. -O1 -pthread \
        -o "$B/fake_guest" tests/mock/fake_guest.c profiler/core/*.c -lm || fail "cannot build fake_guest"
}

# start_job ARGS...: PID in $JOB
start_job() {
    "$B/fake_guest" "$@" &
    JOB=$!
    JOBS="$JOBS $JOB"
}

# start_shell W H: a terminal with a shell in it
start_shell() {
    tm new-session -d -s t -x "$1" -y "$2" "exec bash --norc --noprofile"
    tm send-keys -t t "PS1='ready> '; cd '$PWD'; clear" Enter
    see '^ready>'
}

keys() { tm send-keys -t t "$@"; }
screen() { tm capture-pane -t t -p; }

# see PATTERN: waits at most 30 s until the screen shows it
see() {
    for _ in $(seq 300); do
        screen | grep -qE -- "$1" && return 0
        sleep 0.1
    done
    fail "the screen does not show '$1'" with-screen
}

# gone PATTERN: waits until the screen does not show it any more
gone() {
    for _ in $(seq 300); do
        screen | grep -qE -- "$1" || return 0
        sleep 0.1
    done
    fail "the screen still shows '$1'" with-screen
}
