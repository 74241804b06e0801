# A before/after in a stand-in job that speaks the control protocol: result, order, what is asked of the
# guest, and every way in which it can end early.
. "$(dirname "$0")/common.bash"

job="$B/fake_ab"
[ -x "$job" ] || (cd "$root" && job="$T/fake_ab" && ${CC:-cc} -std=c11 -D_GNU_SOURCE -I. -O1 -o "$job" \
    tests/mock/fake_ab.c profiler/core/shm*.c profiler/core/base.c profiler/core/wire.c profiler/core/sock.c -lm)
[ -x "$job" ] || job="$T/fake_ab"

# holds FILE EXPR: of the JSON `r` of the before/after in a profile.
holds() {
    moeprof ab --from "$1" --json >ab.json 2>ab.err || [ $? -ne 1 ] || fail "no before/after in $1"
    python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/ab.schema.json" ab.json
    python3 -c 'import json, sys; r = json.load(open("ab.json")); sys.exit(not eval(sys.argv[1]))' "$2" ||
        fail "does not hold for $1: $2"
}

# The whole way: steps counted are not traced, steps traced are not counted, the job gets its own back.
expect 0 moeprof ab --blocks 6 --seed 3 --end-job --json -o a.moeprof -- "$job"
said "training" # what the job prints does not mix with the JSON
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/ab.schema.json" run.out
holds a.moeprof 'r["speedup"]["verdict"] == "faster" and 1.39 < r["speedup"]["low"] <= r["speedup"]["value"] <= r["speedup"]["high"] < 1.43'
holds a.moeprof 'r["method"]["seed"] == 3 and r["method"]["is_untraced"] and r["method"]["ended_early"] is None'
holds a.moeprof '[a["name"] for a in r["arms"]] == ["original", "moeprof"] and r["arms"][0]["implementation"] == "grouped_mm"'
holds a.moeprof 'len(r["blocks"]) == 12 and all(b["steps"] == 8 and b["first_step"] == b["from_step"] + 2 and not b["is_cut"] for b in r["blocks"])'
holds a.moeprof '[a["peak_memory_bytes"] for a in r["arms"]] == [33e9, 30e9] and r["arms"][0]["peak_memory_source"] == "allocated"'
holds a.moeprof 'r["parity"]["status"] == "passed" and r["parity"]["worst_layer"] == 1 and abs(r["parity"]["worst_ratio"] - 0.96) < 1e-9'
holds a.moeprof 'r["parity"]["output_cosine"] == {"value": 0.999998, "own": 0.999997, "layer": 0, "quantity": "out"}'
holds a.moeprof 'r["parity"]["gradient_cosine"] == {"value": 0.999996, "own": 0.999995, "layer": 0, "quantity": "ddown"}'
holds a.moeprof '[(x["repeats"], x["own_repeats"]) for x in r["parity"]["rows"]] == [(True, False)] + [(None, None)] * (len(r["parity"]["rows"]) - 1)'
holds a.moeprof 'r["run"]["config_hash"] and r["training"]["seed"] == "42" and r["arms"][1]["tracing_ratio"] is not None'
holds a.moeprof 'r["arms"][0]["mfu"] < r["arms"][1]["mfu"] and r["arms"][0]["phases"]["idle"] > 10 * r["arms"][1]["phases"]["idle"]'
[ "$(sql a.moeprof "SELECT count(*) FROM block_ab b JOIN step s ON s.step BETWEEN b.first_step AND b.last_step WHERE s.flags & 8 = 0")" = 0 ] ||
    fail "counted steps were traced"
[ "$(sql a.moeprof "SELECT max(step) - (SELECT max(traced_to) FROM block_ab) < 200 FROM step")" = 1 ] || fail "the job was not ended"

# The same seed, the same order; another profile in text and Markdown.
expect 0 moeprof ab --blocks 6 --seed 3 --end-job -o b.moeprof -- "$job"
[ "$(sql a.moeprof "SELECT group_concat(arm) FROM block_ab")" = "$(sql b.moeprof "SELECT group_concat(arm) FROM block_ab")" ] || fail "another order"
grep -q '^moeprof is faster than original (grouped_mm): 1\.4' run.out || fail "no verdict: $(head -2 run.out)"
python3 -c 'import sys; sys.exit(any(len(x.rstrip("\n")) > 100 for x in open("run.out", encoding="utf-8")))' || fail "wider than 100 columns"
expect 0 moeprof ab --from b.moeprof --md
[ "$(wc -l <run.out)" -le 60 ] || fail "more than 60 lines of Markdown"

expect 0 moeprof report b.moeprof
head -1 run.out | grep -q '^moeprof is faster' && grep -q '^MFU ~' run.out || fail "the report does not begin with the before/after"
expect 0 moeprof report b.moeprof --md
head -1 run.out | grep -q '^\*\*moeprof ab:' || fail "no before/after in the Markdown report"
[ "$(wc -l <run.out)" -le 60 ] || fail "more than 60 lines of Markdown: $(wc -l <run.out)"
expect 0 moeprof report b.moeprof --json
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/report.schema.json" run.out
python3 -c 'import json; json.dump(json.load(open("run.out"))["ab"], open("inner.json", "w"))'
python3 "$root/tests/e2e/json_schema.py" "$root/report/schema/ab.schema.json" inner.json

# One whose tables cannot be written, and one that is damaged behind it: a sentence for each.
python3 -c 'import shutil, sqlite3; shutil.copy("b.moeprof", "hurt.moeprof"); d = sqlite3.connect("hurt.moeprof"); d.execute("UPDATE route SET n_expert = -5"); d.commit()'
: >no-folder
expect 1 moeprof report b.moeprof hurt.moeprof --csv no-folder
said "no-folder"
said "profile 'hurt.moeprof' is damaged: it claims a layer of -5 experts"

# Equal arms; three arms, one of them not there, and what to do about it.
expect 0 moeprof ab --arms original,original --blocks 10 --end-job -o aa.moeprof -- "$job"
holds aa.moeprof 'r["speedup"]["verdict"] == "no difference" and r["speedup"]["floor"] < 0.01'
expect 0 moeprof ab --arms original,scattermoe,moeprof,deepgemm --blocks 6 --end-job -o many.moeprof -- "$job"
holds many.moeprof '[a["status"] for a in r["arms"]] == ["measured", "refused", "measured", "refused"]'
holds many.moeprof '"no package scattermoe" in r["arms"][1]["why"] and "deep_gemm" in r["arms"][3]["why"]'
expect 1 moeprof ab --arms original,grouped-mm --blocks 6 --end-job -o misspelt.moeprof -- "$job"
grep -q "no arm of that name, but original, grouped_mm, moeprof" run.out || fail "the arms that there are are not told: $(head -2 run.out)"
said "nothing was compared: 'grouped-mm' refused: there is no arm of that name, but original, grouped_mm, moeprof; --arms"
expect 1 moeprof ab --from misspelt.moeprof --json
said "nothing was compared: 'grouped-mm' refused"
# The base is not there: the job did not end, and it is not said.
expect 1 moeprof ab --arms scattermoe,moeprof --blocks 6 --end-job -o nobase.moeprof -- "$job"
said "nothing was compared: 'scattermoe' refused: the job's Python has no package scattermoe"
# A damaged profile in which no pair is left.
cp b.moeprof nopair.moeprof
python3 -c 'import sqlite3; d = sqlite3.connect("nopair.moeprof"); d.execute("UPDATE block_ab SET is_cut = 1"); d.commit()'
expect 1 moeprof ab --from nopair.moeprof --md
said "nothing was compared: no two whole blocks that belong together are left in 'nopair.moeprof'"

# Losses side by side: equal ones agree, a shift is told; a model that returns none has none.
holds a.moeprof 'r["parity"]["loss"]["status"] == "agrees" and r["parity"]["loss"]["pairs"] == 6 and abs(r["parity"]["loss"]["difference"]["value"]) < 1e-3'
holds a.moeprof 'all(b["loss"] > 2 for b in r["blocks"]) and [a["figures"]["saved_activations_bytes"] for a in r["arms"]] == [9e9, 5e9]'
expect 0 moeprof ab --blocks 6 --end-job -o gap.moeprof -- "$job" loss-gap=0.05
holds gap.moeprof 'r["parity"]["loss"]["status"] == "differs" and 0.02 < r["parity"]["loss"]["difference"]["low"] and r["parity"]["status"] == "passed"'
expect 0 moeprof ab --from gap.moeprof
grep -q '^loss  *differs: ' run.out || fail "the loss is not told: $(grep -n loss run.out)"
expect 0 moeprof ab --blocks 6 --end-job -o noloss.moeprof -- "$job" no-loss
holds noloss.moeprof 'r["parity"]["loss"]["status"] == "unknown" and r["parity"]["loss"]["base"] is None and r["blocks"][0]["loss"] is None'
holds many.moeprof 'r["speedup"]["verdict"] == "faster" and r["arms"][2]["speedup"]["verdict"] == "faster"'

# A guest that can do less, or answers late: fewer facts, the same result.
expect 0 moeprof ab --blocks 6 --end-job -o less.moeprof -- "$job" no-trace no-memory
said "cannot pause tracing"
holds less.moeprof 'r["speedup"]["verdict"] == "faster" and not r["method"]["is_untraced"] and r["arms"][0]["peak_memory_bytes"] is None'
holds less.moeprof 'r["arms"][0]["phases"]["expert"] > 0 and any("traced too" in n for n in r["notes"])'
expect 0 moeprof ab --blocks 6 --end-job -o late.moeprof -- "$job" late=7
holds late.moeprof 'r["speedup"]["verdict"] == "faster" and not any(b["is_cut"] for b in r["blocks"])'

# Numbers that differ: nothing is swapped, and the exit code says so.
expect 4 moeprof ab --end-job -o parity.moeprof -- "$job" parity-fail
grep -q "'moeprof' parity failed: layer 1" run.out || fail "parity is not said: $(head -1 run.out)"
said "'moeprof' parity failed: layer 1"
holds parity.moeprof 'r["parity"]["status"] == "failed" and r["parity"]["worst_layer"] == 1 and r["blocks"] == [] and r["speedup"] is None'
expect 4 moeprof ab --end-job -o reverted.moeprof -- "$job" revert=100
holds reverted.moeprof 'r["parity"]["status"] == "reverted" and "NaN" in r["arms"][1]["why"] and "reverted at step" in r["method"]["ended_early"]'

# Somebody else swaps, or another model comes: what was measured until then is told, and why it ended.
expect 0 moeprof ab --blocks 20 --end-job -o foreign.moeprof -- "$job" foreign=150
holds foreign.moeprof '"another tool swapped in" in r["method"]["ended_early"]'
expect 0 moeprof ab --blocks 20 --end-job -o other.moeprof -- "$job" other-model=100
holds other.moeprof '"another model trains" in r["method"]["ended_early"]'

# One of three is reverted: the others are measured to the end. A graph under capture is waited for.
expect 4 moeprof ab --arms original,moeprof,grouped_mm --blocks 6 --seed 5 --end-job -o two.moeprof -- "$job" revert=60
holds two.moeprof '[a["status"] for a in r["arms"]] == ["measured", "reverted", "measured"]'
holds two.moeprof 'r["arms"][2]["speedup"]["pairs"] == 6 and r["arms"][2]["speedup"]["verdict"] == "no difference" and r["method"]["ended_early"] is None'
holds two.moeprof 'sum(b["is_cut"] for b in r["blocks"]) == 1'
expect 0 moeprof ab --blocks 6 --end-job -o busy.moeprof -- "$job" busy=5
holds busy.moeprof 'r["speedup"]["verdict"] == "faster" and len(r["blocks"]) == 12 and r["method"]["ended_early"] is None'

# The job ends first: what there is is told, and is never conclusive.
expect 0 moeprof ab -o short.moeprof -- "$job" end=100
holds short.moeprof 'r["speedup"]["verdict"] == "inconclusive" and "the job ended in block" in r["method"]["ended_early"]'
expect 0 moeprof ab -o slow-exit.moeprof -- "$job" end=100 linger=300
! grep -q "goes on" run.err || fail "a job that ended is said to go on"
[ "$(sql slow-exit.moeprof "SELECT max(step) FROM step")" = 99 ] || fail "the last steps are missing"
holds slow-exit.moeprof '"the job ended in block" in r["method"]["ended_early"]'
expect 0 moeprof ab -o hung-up.moeprof -- "$job" end=100 linger=3000
holds hung-up.moeprof '"the job closed the connection in block" in r["method"]["ended_early"]'
expect 3 moeprof ab -o none.moeprof -- "$job" end=20 pace=20000
said "nothing was compared: the job ended"
expect 3 moeprof ab -o deaf.moeprof -- "$job" deaf end=60
said "nothing was measured: the job ended before all of it listened on its control sockets: cannot reach the guest of process"
# A job that trains on and cannot be asked: said once while it does, and at its end, whatever that is.
expect 3 moeprof ab -o deaf.moeprof -- bash -c "timeout -s KILL 13 '$job' deaf; kill -9 \$\$"
[ "$(grep -c 'the job trains and is not measured yet: cannot reach the guest of process' run.err)" = 1 ] || fail "not said once: $(cat run.err)"
said "ended by signal 9"
said "nothing was measured: the job ended"
expect 3 moeprof ab -o half.moeprof -- "$job" rank=0 world=2 end=400
said "nothing was measured: the job ended before all of it listened on its control sockets: 1 of 2 ranks train here"
expect 3 moeprof ab -o none.moeprof -- bash -c 'kill -9 $$'
said "nothing was measured: the job ended before all of it listened on its control sockets; it does once a model trains"
# Left by SIGUSR1 before there was anything: the job goes on, and is not said to have ended.
rm -f pid
"$B/moeprof" ab -o left.moeprof -- bash -c "echo \$\$ >pid; exec '$job' deaf" >/dev/null 2>run.err &
ab=$!
wait_for 10 grep -q 'recording process' run.err
kill -USR1 $ab
code=0
wait $ab || code=$?
[ $code = 1 ] || fail "code $code, not 1: $(cat run.err)"
said "the job goes on with its own experts as process $(cat pid)"
said "nothing was measured: the job was left before all of it listened"
kill -9 "$(cat pid)"

# Left alone, the job goes on with its own arm after the blocks; with --wait it is recorded to its end.
expect 0 moeprof ab --blocks 2 -o on.moeprof -- bash -c "echo \$\$ >pid; exec '$job' pace=4000"
said "the job goes on with its own experts"
kill -0 "$(cat pid)" || fail "the job was ended"
kill -9 "$(cat pid)"
expect 0 moeprof ab --blocks 2 --wait -o wait.moeprof -- "$job" end=400
[ "$(sql wait.moeprof "SELECT max(step) FROM step")" = 399 ] || fail "--wait did not wait"
expect 0 moeprof ab --blocks 2 --end-job --kill-after 1 -o kill.moeprof -- bash -c "trap '' INT; '$job'; true"

# While it runs the profile is found from the job directory and holds the blocks so far; a kill of ab leaves them.
rm pid
"$B/moeprof" ab --blocks 50 -o watched.moeprof -- bash -c "echo \$\$ >pid; exec '$job' pace=2000" >/dev/null 2>&1 &
ab=$!
wait_for 10 test -s pid
wait_for 10 test "$T/watched.moeprof" -ef "$T/job/$(cat pid).moeprof"
begun() { [ "$(sql watched.moeprof 'SELECT count(*) FROM block_ab WHERE NOT is_cut')" -ge 4 ]; }
wait_for 20 begun
kill -9 $ab "$(cat pid)"
{ wait $ab; } 2>/dev/null || true
holds watched.moeprof 'len(r["blocks"]) >= 5 and r["blocks"][-1]["is_cut"] and r["speedup"]["value"] > 1.3'
rm "job/$(cat pid).moeprof"

# Ranks are driven as one.
expect 0 moeprof ab --blocks 6 --end-job --kill-after 0 -o ranks.moeprof -- bash -c "'$job' rank=1 world=2 & '$job' rank=0 world=2; wait"
holds ranks.moeprof 'r["speedup"]["verdict"] == "faster" and len(r["blocks"]) == 12'

# Without traced steps: no phases, the same verdict.
expect 0 moeprof ab --blocks 6 --traced-steps 0 --end-job -o untraced.moeprof -- "$job"
holds untraced.moeprof 'r["speedup"]["verdict"] == "faster" and r["method"]["traced_steps"] == 0 and r["arms"][0]["phases"] == {}'

# Wrong use.
expect 2 moeprof ab
said "no command to run"
expect 2 moeprof ab --arms one -- true
said "two arms are needed"
expect 2 moeprof ab --blocks 0 -- true
expect 2 moeprof ab --json --md -- true
expect 2 moeprof ab --wait --end-job -- true
expect 2 moeprof ab --kill-after 3 -- true
expect 2 moeprof ab --arms a,,b -- true
expect 1 moeprof ab -- ./missing
expect 0 moeprof run -o plain.moeprof -- "$guest" steps=5 fast
expect 1 moeprof ab --from plain.moeprof
said "holds no before/after"
