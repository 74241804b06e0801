# Wrong words, wrong files, jobs with nothing to record: a sentence that names the thing, the right code.
. "$(dirname "$0")/common.bash"

usage() { # WORD ARGS..
    local word=$1
    shift
    expect 2 moeprof "$@"
    said "$word"
    said "--help"
}
usage "no command given"
usage "'zork'" zork
usage "'-x'" run -x -- true
usage "'--zork'" report --zork a
usage "no command to run" run -o a.moeprof
usage "'-o' wants a value" run -o
usage "no profile given" report --json
usage "'abc'" report --peak abc a.moeprof
usage "'-3'" report --peak=-3 a.moeprof
usage "'1e-300' is not a peak in TFLOP/s (0.01 to 100000)" report --peak 1e-300 a.moeprof
for peak in 1e6 nan inf 1e999 ""; do usage "'$peak'" report --peak "$peak" a.moeprof; done
for seed in -1 ' -1' +1 99999999999999999999 9223372036854775808 5x ""; do usage "'$seed' is no seed" ab --seed "$seed" -- true; done
usage "--arm, --partial and --fresh go with on, not with 'off'" swap $$ off --arm eager
usage "not with 'status'" swap $$ status --fresh
usage "'extra'" doctor extra
usage "two formats in one standard output" report --md --json a.moeprof
usage "--trace-format needs --trace" report --trace-format chrome a.moeprof
usage "--speed needs --replay" top --speed 2
for c in $(moeprof --help | sed -n 's/^  moeprof \([a-z]*\) .*/\1/p'); do
    expect 0 moeprof $c --help
    grep -q "^usage: moeprof $c" run.out || fail "no usage of $c"
done
expect 0 moeprof --version
grep -q '^moeprof [0-9]' run.out || fail "no version"

# The job is not started when its profile could not be written.
expect 1 moeprof run -o /nowhere/a.moeprof -- touch started
said "/nowhere/a.moeprof"
echo notes >notes.txt
expect 1 moeprof run -o notes.txt -- touch started
said "exists and is not a profile"
[ "$(cat notes.txt)" = notes ] || fail "somebody's file was overwritten"
expect 1 moeprof run -o "" -- touch started
said "the name of the profile is empty"
[ ! -e started ] || fail "the job was started"
for odd in :memory: 'file:odd.moeprof?mode=memory'; do
    expect 0 moeprof run -o "$odd" -- "$guest" steps=3
    expect 0 moeprof report "$odd"
    rm "./$odd"
done
expect 1 moeprof run -- no-such-command
said "'no-such-command'"

# A process that is no more, and one that moeprof never entered.
true & ended=$!
wait $ended
expect 3 moeprof swap $ended status
said "process $ended is gone"
expect 3 moeprof swap $$ status
said "is it a job that moeprof entered"

# Nothing trained, and why.
expect 1 moeprof run -- true
said "nothing was recorded"
expect 1 moeprof run -- "$guest" sleep
said "nothing was recorded"
expect 1 moeprof run -- "$guest" off="CUPTI is held by 'nsys'"
said "nothing was recorded: CUPTI is held by 'nsys'"
expect 7 moeprof run -- "$guest" quiet exit=7
said "exit code 7"
expect 3 moeprof run -o x.moeprof -- "$guest" steps=4 exit=3
json x.moeprof 'r["step"]["recorded"] == 4'

# Files that are no profiles, or of another time.
expect 1 moeprof report missing.moeprof
said "missing.moeprof"
: >empty.moeprof
expect 1 moeprof report empty.moeprof
said "is empty"
head -c 5000 /dev/urandom >noise.moeprof
expect 1 moeprof report noise.moeprof
said "not a moeprof profile"
head -c 30000 x.moeprof >cut.moeprof
expect 1 moeprof report cut.moeprof
said "was cut"
cp x.moeprof new.moeprof
python3 -c 'import sqlite3; d = sqlite3.connect("new.moeprof"); d.execute("PRAGMA user_version = 9"); d.commit()'
expect 1 moeprof report new.moeprof
said "has schema 9, this moeprof reads schema 1 to 4"
# One bad file among good ones: the good ones are reported, the code tells.
expect 1 moeprof report x.moeprof empty.moeprof
grep -q '^MFU' run.out || fail "the good file has no report"
# What a profile says does not steer the terminal.
cp x.moeprof esc.moeprof
python3 -c 'import sqlite3; d = sqlite3.connect("esc.moeprof"); d.execute("UPDATE name SET name = char(27) || name || char(7)"); d.execute("UPDATE meta SET value = char(27) || value WHERE typeof(value) = \"text\""); d.execute("INSERT INTO log VALUES(999, 1, 2, 1, char(27))"); d.commit()'
for c in "report esc.moeprof" "compare esc.moeprof x.moeprof"; do
    expect 0 moeprof $c
    ! grep -q "$(printf '[\033\007]')" run.out || fail "control characters came through in $c"
done

# A profile is never written over by its report; pipes are written to, links are followed.
cp x.moeprof y.moeprof
expect 1 moeprof report --html x.moeprof y.moeprof
said "'x.moeprof' is a profile"
expect 1 moeprof report --json=x.moeprof x.moeprof
expect 1 moeprof report --trace x.moeprof x.moeprof
expect 1 moeprof compare --html x.moeprof y.moeprof x.moeprof
cmp x.moeprof y.moeprof || fail "a profile was written over"
mkfifo pipe
cat pipe >from-pipe &
expect 0 moeprof report --html pipe x.moeprof
wait $!
grep -q '</html>' from-pipe && [ -p pipe ] || fail "a pipe was replaced"
echo old >kept.html && ln -s kept.html link.html
expect 0 moeprof report --html link.html x.moeprof
[ -L link.html ] && grep -q '</html>' kept.html || fail "a link was replaced"
expect 0 moeprof report --html /dev/stderr x.moeprof
grep -q '</html>' run.err || fail "nothing in /dev/stderr"
if [ -c /dev/full ]; then
    for to in --html --json --md --trace; do
        expect 1 moeprof report $to=/dev/full x.moeprof
        said "cannot write '/dev/full': No space left"
        [ -c /dev/full ] || fail "a device was replaced"
    done
fi
rm y.moeprof pipe link.html kept.html

# From a read-only place.
mkdir ro && cp x.moeprof ro/ && chmod 500 ro
expect 0 moeprof report ro/x.moeprof
chmod 700 ro

# Standard output full or gone.
if [ -w /dev/full ]; then
    code=0
    moeprof report x.moeprof >/dev/full 2>run.err || code=$?
    [ $code = 1 ] || fail "code $code when stdout is full"
fi
moeprof report x.moeprof | head -1 >/dev/null

# doctor says a line each, and sees a running guest.
"$guest" steps=100 & other=$!
wait_for 5 test -e "job/$other.shm"
moeprof doctor >run.out 2>run.err || true
grep -q "^ok .*process .*$other .*fake_guest" run.out || fail "doctor does not see the job: $(cat run.out)"
! grep -vqE '^(ok|warn|fail) ' run.out || fail "a line without a verdict: $(cat run.out)"
kill $other && wait $other 2>/dev/null || true
