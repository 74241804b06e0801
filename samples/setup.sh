# Prints the interpreter that can run the samples: PYTHON='..' for eval. One that has torch and transformers
# already ($PYTHON, default python3) is taken as it is; else the tests' environment is made.
set -eu
PYTHON=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)

if ! "$PYTHON" -c "import torch, transformers" >/dev/null 2>&1; then
    eval "$(bash "$here/../tests/bridge/setup_venv.sh")"
    PYTHON=$PY5
fi
printf "PYTHON='%s'\n" "$("$PYTHON" -c "import sys; print(sys.executable)")"
