# A training runs; moeprof swaps its experts and puts them back, and the recording shows step times on both sides.
#   bash samples/swap_live.sh [options of train_plain.py]        MOEPROF: the tool, default build/moeprof
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
moeprof=${MOEPROF_TOOL:-$root/build/moeprof}
[ $# -gt 0 ] || set -- --model qwen3-30b --layers 4 --tokens 4096 --steps 120
eval "$(bash "$root/samples/setup.sh")"

"$moeprof" run -o swap_live.moeprof -- "$PYTHON" "$root/samples/train_plain.py" "$@" &
run=$!
trap 'kill $run 2>/dev/null || true' EXIT
pid=
while [ -z "$pid" ]; do # the process that trains has a control socket
    kill -0 $run
    sleep 1
    pid=$(pgrep -P $run | head -1)
    "$moeprof" swap "$pid" status >/dev/null 2>&1 || pid=
done
"$moeprof" swap "$pid" status
sleep 10
"$moeprof" swap "$pid" on
sleep 10
"$moeprof" swap "$pid" off
wait $run
trap - EXIT
"$moeprof" report swap_live.moeprof
