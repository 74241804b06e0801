# No space: one clear sentence, exit code 1, the job goes on, what was committed stays readable.
. "$(dirname "$0")/common.bash"

check() { # FILE
    said "cannot write profile"
    said "what was recorded before that is in"
    [ "$(grep -c 'cannot write profile' run.err)" = 1 ] || fail "said more than once"
    [ "$(cat code)" = 0 ] || fail "the job ended with $(cat code)"
    json "$1" 'r["step"]["recorded"] >= 1'
}

# A limit on the size of files (bash counts in KiB) that the job is not under.
job="ulimit -S -f unlimited; '$guest' steps=60; echo \$? > code"
expect 1 bash -c "ulimit -S -f 400; '$B/moeprof' run -o a.moeprof -- bash -c \"$job\""
check a.moeprof

# A full file system, where one may be mounted.
mkdir small
if mount -t tmpfs -o size=500k none small 2>/dev/null; then
    trap 'umount "$T/small"; rm -rf "$T"' EXIT
    expect 1 moeprof run -o small/b.moeprof -- bash -c "'$guest' steps=60; echo \$? > code"
    check small/b.moeprof
    # And one that is full before the start.
    rm -f small/*
    dd if=/dev/zero of=small/fill bs=1k count=2000 2>/dev/null || true
    expect 1 moeprof run -o small/c.moeprof -- "$guest" steps=3
    said "small/c.moeprof"
fi
