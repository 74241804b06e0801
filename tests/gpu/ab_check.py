"""Before/after on a GPU, by the tool as a user runs it. One table a part, `ok` or `FAIL` where there is a bar; exit code 1
on a FAIL.

B=build python3 tests/gpu/ab_check.py [few] [many] [words] [extra] [equal] [loop] [--out DIR] [--layers N] [--vocab N]
    few     grouped_mm against moeprof and eager, 4096 tokens
    many    grouped_mm against moeprof, 16384 tokens
    words   the same with all 151936 words and Liger's kernels for all but the experts: its loss keeps no logits
    extra   every other arm that people weigh: measured, or refused with a reason
    equal   20 A/A runs out of one process
    loop    8 wide experts, 32768 tokens: the job's own loop against moeprof
Needs torch, transformers 5.x and the tool with its libraries in B. About five minutes on an H100.
"""
import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("B", ROOT / "build")).resolve() / "moeprof"
failures = []


def fact(name, text, ok=None):
    print("  %-44s %s%s" % (name, text, "" if ok is None else "  ok" if ok else "  FAIL"), flush=True)
    if ok is False:
        failures.append(name)


def measured(args, name, arms, job, blocks=6, steps=6, traced=4, warmup=8, limit=400):
    """The JSON of one before/after, whose profile is kept under that name."""
    profile = args.out / (name + ".moeprof")
    profile.unlink(missing_ok=True)
    command = [str(TOOL), "ab", "--arms", arms, "--blocks", str(blocks), "--steps-per-block", str(steps), "--traced-steps",
               str(traced), "--warmup", str(warmup), "--seed", "1", "--end-job", "--kill-after", "5", "--json", "-o", str(profile),
               "--", sys.executable, str(ROOT / "samples/train_plain.py"), "--steps", "1000000", *job.split()]
    begin = time.time()
    with open(args.out / (name + ".log"), "w") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=limit)
    print("%s: %s | %s (%.0f s, exit code %d)" % (name, arms, job, time.time() - begin, done.returncode), flush=True)
    (args.out / (name + ".json")).write_text(done.stdout)
    if not done.stdout:
        print((args.out / (name + ".log")).read_text()[-2000:])
        fact("a result", "none", False)
        return None
    return json.loads(done.stdout)


def shown(value, form="%.3g"):
    return "–" if value is None else form % value


def arms_table(result):
    print("  %-18s %7s %10s %9s %9s %9s  %s" % ("arm", "MFU %", "step ms", "peak GiB", "saved GiB", "loss", "against the first"))
    for arm in result["arms"]:
        figures, speedup = arm["figures"], arm["speedup"] or {}
        mfu, step, peak, saved = arm["mfu"], arm["step_seconds"], arm["peak_memory_bytes"], figures["saved_activations_bytes"]
        told = arm["status"] if arm["status"] != "measured" else ""
        if speedup.get("value"):
            told = "%s × [%s, %s] %s" % tuple([shown(speedup[k], "%.3f") for k in ("value", "low", "high")] + [speedup["verdict"]])
        print("  %-18s %7s %10s %9s %9s %9s  %s" %
              (arm["name"], shown(mfu and 100 * mfu), shown(step and 1e3 * step, "%.1f"), shown(peak and peak / 2**30, "%.2f"),
               shown(saved and saved / 2**30, "%.2f"), shown(figures["loss"], "%.4f"), told))
        if arm["why"]:
            print("      " + arm["why"])
    if result["method"]["ended_early"]:
        print("  ended early: " + result["method"]["ended_early"])


def common_bars(result):
    parity, loss = result["parity"], result["parity"]["loss"]
    fact("parity", "%s, worst ratio %s in layer %s" % (parity["status"], shown(parity["worst_ratio"]), parity["worst_layer"]),
         parity["status"] == "passed")
    fact("loss", "%s: difference %s, equal arms stray by %s" % (loss["status"], shown(loss["difference"]["value"]),
                                                                shown(loss["floor"])), loss["status"] == "agrees")
    for name in ("output_cosine", "gradient_cosine"):
        one = parity[name] or {"value": None, "own": None, "quantity": "nothing", "layer": -1}
        fact("least cosine, " + name.split("_")[0], "%s of %s in layer %d, own arm %s" %
             (shown(one["value"], "%.7f"), one["quantity"], one["layer"], shown(one["own"], "%.7f")), bool(one["value"]) and one["value"] > 0.999)
    twice = next((row for row in parity["rows"] if row["repeats"] is not None), {})
    fact("run twice, the same bits", "the arm: %s, the job's own: %s" % (twice.get("repeats"), twice.get("own_repeats")))
    fact("what tracing adds to a step", ", ".join("%s %% (%s)" % (shown(a["tracing_ratio"] and 100 * a["tracing_ratio"], "%+.2f"), a["name"])
                                                  for a in result["arms"]))
    fact("configuration, seed", "%s, %s" % (result["run"]["config_hash"], result["training"]["torch_seed"]), bool(result["run"]["config_hash"]))
    floor, seen = result["speedup"]["floor"], result["speedup"]["detectable"]
    fact("A/A floor, smallest difference seen", "%s %%, %s %%" % (shown(floor and 100 * floor), shown(seen and 100 * seen)))


def few(args):
    result = measured(args, "speed_4096", "grouped_mm,moeprof,eager",
                      "--model qwen3-30b --layers %d --vocab %d --experts grouped_mm --tokens 4096" % (args.layers, args.vocab), steps=4)
    if result:
        arms_table(result)
        common_bars(result)
        grouped, ours, eager = result["arms"]
        if ours["mfu"] and eager["mfu"]:
            ratio = ours["mfu"] / eager["mfu"]
            fact("whole-step MFU, eager to moeprof (>= 8)", "%.2f" % ratio, ratio >= 8)
        fact("verdict on moeprof", result["speedup"]["verdict"], result["speedup"]["verdict"] == "faster")


def many(args):
    many_tokens(args, "speed_16384", "--vocab %d" % args.vocab)


def words(args):
    many_tokens(args, "words_16384", "--vocab 151936 --liger")


def many_tokens(args, name, more):
    result = measured(args, name, "grouped_mm,moeprof",
                      "--model qwen3-30b --layers %d --experts grouped_mm --tokens 4096 --batch 4 %s" % (args.layers, more))
    if result:
        arms_table(result)
        common_bars(result)
        grouped, ours = result["arms"]
        value = result["speedup"]["value"]
        fact("whole step, grouped_mm to moeprof (>= 1.35)", shown(value), bool(value) and value >= 1.35)
        fact("peak memory is lower", "%s to %s GiB" % tuple(shown(a["peak_memory_bytes"] and a["peak_memory_bytes"] / 2**30, "%.2f")
                                                           for a in (grouped, ours)),
             bool(ours["peak_memory_bytes"]) and ours["peak_memory_bytes"] < grouped["peak_memory_bytes"])
        layers = [(a["seconds"], b["seconds"]) for a, b in zip(grouped["layers"], ours["layers"])]
        if layers and all(b for _, b in layers):
            worst = min(a / b for a, b in layers)
            fact("router to combine, least of the layers (>= 2)", "%.2f" % worst, worst >= 2)


def extra(args):
    result = measured(args, "extra", "grouped_mm,padded_bmm,equal_bmm,scattermoe,qwen3-moe-fused,megablocks,reduce-overhead,moeprof",
                      "--model qwen3-30b --layers 2 --experts grouped_mm --tokens 4096", steps=4, traced=2)
    if result:
        arms_table(result)
        silent = [a["name"] for a in result["arms"] if a["status"] != "measured" and not a["why"]]
        fact("each measured or refused with a reason", ", ".join(silent) or "all", not silent)
        fact("it came to its end", result["method"]["ended_early"] or "yes", not result["method"]["ended_early"])


def equal(args):
    """Consecutive stretches of one long run of equal arms, each judged as a run of its own by the tool."""
    n, pairs = 20, 6
    result = measured(args, "equal", "original,original",
                      "--model qwen3-30b --layers 2 --experts grouped_mm --tokens 4096 --vocab 32768", blocks=n * pairs, steps=4,
                      traced=0)
    if not result:
        return
    verdicts = []
    for i in range(n):
        part = args.out / ("equal_%02d.moeprof" % i)
        shutil.copyfile(args.out / "equal.moeprof", part)
        with sqlite3.connect(part) as db:
            db.execute("DELETE FROM block_ab WHERE pair NOT BETWEEN ? AND ?", (i * pairs, (i + 1) * pairs - 1))
        db.close()
        told = subprocess.run([str(TOOL), "ab", "--from", str(part), "--json"], capture_output=True, text=True, timeout=60)
        verdicts.append(json.loads(told.stdout)["speedup"])
        part.unlink()
    for i, v in enumerate(verdicts):
        print("  %2d  %s [%s, %s]  floor %s %%  %s" % (i, shown(v["value"], "%.4f"), shown(v["low"], "%.4f"), shown(v["high"], "%.4f"),
                                                     shown(v["floor"] and 100 * v["floor"], "%.2f"), v["verdict"]))
    wrong = sum(v["verdict"] in ("faster", "slower") for v in verdicts)
    fact("A/A runs that say faster or slower (<= 1)", "%d of %d, step %s ms" % (wrong, n, shown(1e3 * result["arms"][0]["step_seconds"],
                                                                                               "%.1f")), wrong <= 1)


def loop(args):
    result = measured(args, "loop", "original,moeprof,grouped_mm",
                      "--model mixtral --layers 1 --experts eager --tokens 4096 --batch 8 --lr 1e-5", steps=4, traced=2, warmup=5)
    if result:
        arms_table(result)
        verdict = result["speedup"]["verdict"]
        fact("what the tool says of moeprof against the loop", "%s: %s" % (verdict, result["speedup"]["why"]),
             verdict != "inconclusive")
        fact("of grouped_mm against the loop", result["arms"][2]["speedup"]["verdict"])


PARTS = {"few": few, "many": many, "words": words, "extra": extra, "equal": equal, "loop": loop}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("ab_check.out"))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=32768, help="all 151936, with 16384 tokens and grouped_mm, peak at 83 GiB: more than an H100 has")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts or PARTS:
        PARTS[part](args)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
