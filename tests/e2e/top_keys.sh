# top in a real terminal: a job appears, screens change, the window changes its size, the display
# pauses while the collection goes on, and leaving gives the shell back.
. tests/e2e/top_lib.bash
have_tmux
build_fake

start_shell 100 30
keys "$TOP top" Enter
see 'Waiting for a training under moeprof'
start_job steps=100000 layers=6 experts=32
see "PID $JOB .*recording"
see 'MFU ~?[0-9.]+ %.*mean'
see 'expert +[0-9.]+ %.*idle|idle +[0-9.]+ %'

keys 2
see 'Tokens by layer and expert'
keys j j Right
see 'Layer 2, expert 1'
keys t
see 'GPU time by layer and expert'
keys 3
see 'Kernels by name'
keys /
see 'filter: _'
keys nvjet Enter
see "filter 'nvjet'"
gone 'at::native'
keys e
see 'Whole name'
keys Escape
keys 4
see 'At the mark'
keys Tab
see 'What works'
keys '?'
see 'pause the display'
keys Escape
see 'What works'
keys 1
see 'Useful|MFU'

tm resize-window -t t -x 140 -y 45
see 'Last step by phase and pass'
tm resize-window -t t -x 40 -y 10
see 'make it 60x16 for more'
tm resize-window -t t -x 1 -y 1
sleep 0.3
tm resize-window -t t -x 80 -y 24
see 'Overview.*Experts.*every'

keys Space
see 'PAUSED'
step=$(screen | grep -oE 'Step [0-9]+')
sleep 1.5
[ "$(screen | grep -oE 'Step [0-9]+')" = "$step" ] || fail "paused, and still moving" with-screen
keys Space
gone 'PAUSED'
gone "$step:"

start_job steps=100000 layers=2 experts=8 rank=1 world=2
see 'job 1/2'
keys ]
see "PID $JOB .*rank 1/2"
keys c c m
see 'by PaLM'
# A filter in UTF-8; a byte that is none takes no key with it.
keys 3 / 'ü→x'
see 'filter: .*ü→x_'
keys Escape
printf '\3774' | tm load-buffer -
tm paste-buffer -t t
see 'At the mark'
printf '\303\342\202q' | tm load-buffer -
tm paste-buffer -t t
see '^ready> *$'
gone 'Overview'
keys 'stty -a | tr ";" "\n"' Enter
see ' icanon.* echo |isig icanon'
