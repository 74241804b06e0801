# Installs what the build and the tests use where it is missing (Debian and Ubuntu; root or sudo).
# Elsewhere it says what is wanted and leaves the rest to the Makefile, which drops features. B: build folder, where what the
# machine has was written down before: it is asked once more.
packages="gcc make python3-venv pkg-config libsqlite3-dev libzstd-dev libjansson-dev libncurses-dev libcmocka-dev sqlite3 tmux binutils"
missing=
for p in $packages; do
    dpkg -s "$p" >/dev/null 2>&1 || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "moeprof: please install the equivalents of:$missing" >&2
    exit 0
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
{ $sudo apt-get update -qq && $sudo apt-get install -y -qq $missing >/dev/null; } || exit
rm -f "${B:-build}/config.mk"
