# A machine that lacks packages: they are asked for by name, and what the build knew of the machine is forgotten. One that has all is
# left alone. dpkg and apt-get are stand-ins.
. "$(dirname "$0")/common.bash"

mkdir -p bin b
echo 'echo "$*" >>"$T/apt.log"; exit ${APT_CODE:-0}' >bin/apt-get
echo 'case $2 in ${LACKS:-none}) exit 1 ;; esac' >bin/dpkg
printf '#!/bin/sh\nexec "$@"\n' >bin/sudo
for f in apt-get dpkg; do
    printf '#!/bin/sh\n%s\n' "$(cat bin/$f)" >bin/$f
done
chmod +x bin/*
export T

echo 'TOOL_LIBS :=' >b/config.mk
PATH=$PWD/bin:$PATH LACKS=libzstd-dev APT_CODE=100 B=b sh "$root/tests/tools/setup.sh" && fail "apt-get failed, and nobody heard"
rm apt.log

PATH=$PWD/bin:$PATH LACKS=none B=b sh "$root/tests/tools/setup.sh" || fail "setup with nothing to do"
[ -e b/config.mk ] && [ ! -e apt.log ] || fail "nothing was missing, and yet something was done"

PATH=$PWD/bin:$PATH LACKS=libzstd-dev B=b sh "$root/tests/tools/setup.sh" || fail "setup of one package"
grep -q 'install .*libzstd-dev' apt.log || fail "the package is not asked for"
grep -q 'libjansson-dev' apt.log && fail "a package that is there is asked for"
[ ! -e b/config.mk ] || fail "what the machine had before is still believed"
