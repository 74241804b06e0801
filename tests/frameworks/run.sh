#!/usr/bin/env bash
# Jobs that nobody here wrote, each once under `moeprof run`, unchanged: trl's SFTTrainer, `axolotl train`, unsloth, on a
# tiny random Qwen3-MoE. On a GPU, from the repository root:
#   bash tests/frameworks/run.sh [SITE.tar.xz]     SITE: what pack.sh packed; without it the frameworks must be installed
# ONLY="trl trl_lora axolotl axolotl_lora unsloth unsloth_warm unsloth_plain": some of them. LIMIT: seconds for each.
# OUT: where profiles and logs go. B: where the tool is.
set -u
here=$(dirname "$(realpath "$0")")
B=${B:-build} W=$(mktemp -d)
OUT=${OUT:-$W/out}
chmod +x "$B/moeprof"; mkdir -p "$OUT" "$W/logs"
nvidia-smi -L
[ $# = 0 ] || python3 -m tarfile -e "$1" "$W/packed" || exit
export PATH=$(dirname "$(command -v python3)"):$PATH
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 AXOLOTL_DO_NOT_TRACK=1 \
    DO_NOT_TRACK=1 WANDB_DISABLED=true UNSLOTH_DISABLE_STATISTICS=1 PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=false
site=$W/packed/site axl=$W/packed/site_axl
python3 -c "import numba" 2>/dev/null || { echo "no numba here: a stub"; axl=$axl:$W/packed/stubs; }
python3 "$here/make_model.py" "$W" >"$W/logs/mk.log" 2>&1 || { tail -3 "$W/logs/mk.log"; exit 1; }
sed "s|FOLDER|$W|" "$here/axolotl.yml" >"$W/axl.yml"
{ cat "$W/axl.yml" "$here/axolotl_lora.yml"; } | sed 's|/out_axl|/out_axl_lora|; s|/prepared|/prepared_lora|' >"$W/axl_lora.yml"
echo "set up: $SECONDS s"

# job NAME PYTHONPATH COMMAND..
job() {
    local name=$1 path=$2 t=$SECONDS rc=0; shift 2
    PYTHONPATH=$path timeout -k 5 ${LIMIT:-110} "$B/moeprof" run -o "$OUT/$name.moeprof" -- "$@" >"$W/logs/$name.log" 2>&1 || rc=$?
    echo "== $name: exit $rc, $((SECONDS - t)) s"
    grep -a '^moeprof' "$W/logs/$name.log" | tail -4
    [ $rc = 0 ] || tail -c 1500 "$W/logs/$name.log"
    [ -e "$OUT/$name.moeprof" ] && "$B/moeprof" report "$OUT/$name.moeprof" >"$W/logs/$name.report" 2>&1 && sed -n '1,/^Layers/p' "$W/logs/$name.report" | head -50
}
ONLY=${ONLY:-trl trl_lora axolotl unsloth axolotl_lora}
for name in $ONLY; do
    case $name in
    trl) job trl $site python3 "$here/trl_job.py" "$W" ;;
    trl_lora) job trl_lora $site python3 "$here/trl_job.py" "$W" lora ;;
    axolotl) job axolotl "$axl:$site" python3 $W/packed/site_axl/bin/axolotl train "$W/axl.yml" ;;
    unsloth|unsloth_warm) cp "$here/unsloth_job.py" "$W/"; mkdir -p "$W/cwd"; B=$(realpath "$B")
             (cd "$W/cwd" && job $name $site python3 "$W/unsloth_job.py" "$W") ;;
    unsloth_plain) mkdir -p "$W/plain"; t=$SECONDS # without moeprof, caches of its own: is the first step as slow?
             (cp "$here/unsloth_job.py" "$W/"; cd "$W/plain" && PYTHONPATH=$site TORCHINDUCTOR_CACHE_DIR=$W/plain/i TRITON_CACHE_DIR=$W/plain/t \
              timeout -k 5 ${LIMIT:-110} python3 "$W/unsloth_job.py" "$W" >"$W/logs/unsloth_plain.log" 2>&1; echo "== unsloth_plain: exit $?, $((SECONDS - t)) s") ;;
    axolotl_lora) [ $SECONDS -lt ${LAST:-260} ] && job axolotl_lora "$axl:$site" python3 $W/packed/site_axl/bin/axolotl train "$W/axl_lora.yml" ;;
    esac
done

echo; echo "| job | experts | MFU | attributed | steps | step ms | useful tok/s | dropped |"; echo "|---|---|---|---|---|---|---|---|"
for f in "$OUT"/*.moeprof; do
    "$B/moeprof" report --json "$f" | python3 -c '
import json, sys
r = json.load(sys.stdin); r = r[0] if isinstance(r, list) else r
ms = r["step"]["median_seconds"]
print("|", sys.argv[1], "|", r["run"]["experts_backend"], "|", r["mfu"]["value"], "|", r["coverage"]["attributed_ratio"], "|",
      r["step"]["count"], "|", ms and round(1e3 * ms, 2), "|", r["tokens"]["useful_per_second"], "|", r["coverage"]["dropped_records"], "|")' "$(basename "$f" .moeprof)"
done
# What a phase or a layer is still missing for.
for f in "$OUT"/*.moeprof; do
    echo; echo "== $(basename "$f" .moeprof)"; python3 "$here/unplaced.py" "$f"
done
tar czf "$OUT/logs.tar.gz" -C "$W" logs
ls -la "$OUT"; echo "all: $SECONDS s"
