# Makes (once) the two Python environments of the bridge tests, outside the tree, and prints where they are:
#   eval "$(bash tests/bridge/setup_venv.sh)"   sets PY5 (transformers 5.x) and PY457 (4.57)
# A torch that $PYTHON (default python3) can already import is used as it is; else one is fetched.
set -eu

PYTHON=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/moeprof
log=$cache/setup.log
tools="pytest numpy"
five="transformers==5.17.0 peft==0.21.0 accelerate==1.15.0 trl==1.9.0 datasets==4.8.5"
four="transformers==4.57.6 huggingface-hub<1.0 tokenizers>=0.22,<=0.23.0 hf-xet requests urllib3 charset-normalizer"

# A venv counts when it was stamped for these versions, or holds them all the same.
has() {
    [ -x "$1/bin/python" ] || return 1
    [ "$(cat "$1/moeprof.stamp" 2>>"$log")" = "$2" ] && return
    "$1/bin/python" -c "import torch, pytest, transformers, peft, accelerate${4:+, $4}
assert transformers.__version__ == '$3'" >>"$log" 2>&1
}

pip() { "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}" >>"$log" 2>&1 ||
    { echo "setup_venv: pip failed: ${*:2}; see $log" >&2; exit 1; }; }

# Where a module's packages lie: a venv sees others' packages behind its own through a .pth file.
home_of() { "$1" -c "import os, $2; print(os.path.dirname(os.path.dirname($2.__file__)))" 2>>"$log"; }

own_of() { "$1/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"; }

make_five() {
    "$PYTHON" -m venv --clear "$1" >>"$log" 2>&1
    home_of "$PYTHON" torch >"$(own_of "$1")/zz_base.pth" || pip "$1" torch==2.11.0
    # shellcheck disable=SC2086
    pip "$1" $five $tools
}

make_four() {
    "$2/bin/python" -m venv --clear "$1" >>"$log" 2>&1
    { own_of "$2"; home_of "$2/bin/python" torch; } >"$(own_of "$1")/zz_base.pth"
    # shellcheck disable=SC2086
    pip "$1" --no-deps $four
}

mkdir -p "$cache"
has "$cache/venv" "$five" 5.17.0 trl || make_five "$cache/venv"
has "$cache/venv457" "$four" 4.57.6 || make_four "$cache/venv457" "$cache/venv"
echo "$five" >"$cache/venv/moeprof.stamp"
echo "$four" >"$cache/venv457/moeprof.stamp"
printf "PY5='%s'\nPY457='%s'\n" "$cache/venv/bin/python" "$cache/venv457/bin/python"
