# The checks that need a GPU, as a table. OUT_DIR=DIR keeps everything there.
# PARTS="coverage truth torch same overhead": some of them. One more, "pairs", compares PAIRS=n pairs of
# whole processes with and without the guest (default 10).
set -u
B=${B:-build}
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "no NVIDIA GPU here: make check-gpu needs one" >&2
    exit 1
fi
folder=${OUT_DIR:-$(mktemp -d)}
mkdir -p "$folder"
export B
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
${PYTHON:-python3} tests/gpu/plan.py "$folder" "${PAIRS:-10}"
"$B/moeprof" run -o "$folder/p.moeprof" -- ${PYTHON:-python3} tests/gpu/serve.py "$folder" "$folder/jobs.json" >"$folder/run.log" 2>&1
${PYTHON:-python3} tests/gpu/evaluate.py "$folder"
