"""Judges what tests/gpu/plan.py's jobs left behind; prints one table. evaluate.py FOLDER"""
import glob
import json
import os
import re
import sqlite3
import statistics
import sys

FOLDER = sys.argv[1]
rows = []


def say(check, value, bar, ok):
    rows.append((check, value, bar, "ok" if ok else "FAILED" if ok is not None else "-"))


def profiles():
    """pid -> open profile."""
    found = {}
    for path in glob.glob(os.path.join(FOLDER, "*.moeprof*")):
        if path.endswith(("-wal", "-shm", "-lock")):
            continue
        db = sqlite3.connect(path)
        found[int(db.execute("select value from meta where key='pid'").fetchone()[0])] = (path, db)
    return found


def one(db, sql, *args):
    return db.execute(sql, args).fetchone()[0]


def seconds_of(name):
    text = open(os.path.join(FOLDER, name + ".log")).read()
    return [float(x) for x in re.findall(r"loss \S+  (\S+) s", text)]


def loss_file(name):
    return json.load(open(os.path.join(FOLDER, name + ".json")))["losses"]


def coverage(db):
    total = one(db, "select sum(raw_ns) from step_cell join step using(step) where flags=0")
    # the guest's own kernels are booked on `other` too; they are not the job's
    own = one(db, "select sum(own_ns) from step where flags=0") or 0
    other = one(db, "select coalesce(sum(raw_ns),0) from step_cell join step using(step) where flags=0 and phase=0") or 0
    return 1 - max(0, other - own) / (total - own), total


def steps_flawless(db):
    return one(db, "select count(*) from step where flags=0 and launches=records and dropped=0")


def check_coverage(name, db):
    ratio, _ = coverage(db)
    bad = one(db, "select count(*) from step where (flags & 5) = 4")
    say("GPU time on a phase, " + name[6:], "%.3f %%  (%d whole steps)" % (100 * ratio, steps_flawless(db)), ">= 99 %",
        ratio >= 0.99 and bad == 0)


def check_routing(by_name):
    """Tokens per expert, block of steps by block, against what the model's own indices say."""
    compared = wrong = jobs = 0
    for name, db in by_name.items():
        path = os.path.join(FOLDER, name + ".routing.json")
        if not os.path.exists(path):
            continue
        jobs += 1
        theirs = json.load(open(path))
        for block, first, last in db.execute("select block, first_step, last_step from block where block < 2").fetchall():
            steps = [s for (s,) in db.execute("select step from step where flags=0 and step between ? and ?", (first, last))]
            for layer, expert, tokens in db.execute("select layer, expert, tokens from expert where block=?", (block,)):
                compared += 1
                wrong += tokens != sum(theirs[s][str(layer)][expert] for s in steps)
    if not jobs:
        return
    say("tokens per expert against the model's own top-k, %d trainings" % jobs, "%d of %d differ" % (wrong, compared),
        "equal", compared > 0 and wrong == 0)


COMPARED = {"grouped": slice(5, 21), "eager": slice(4, 12)}  # not the first ones: kernels are loaded, the allocator settles


def burst_seconds(steps):
    """What steps took beyond their median: a burst of traced steps in them, and what varies anyway."""
    return sum(steps) - len(steps) * statistics.median(steps)


def pace(prefix, by_name):
    """Seconds between two bursts by default, as the guest itself found them for this job."""
    told = [re.search(r"every ([0-9.]+) s", text) for job, db in by_name.items() if job.startswith(prefix)
            for (text,) in db.execute("select text from log")]
    return statistics.median([float(found[1]) for found in told if found] or [float("nan")])


def check_pairs(name, bar, by_name):
    """The median step, which is an untraced one, with the guest and without; and the burst."""
    untraced, bursts = [], []
    for path in sorted(glob.glob(os.path.join(FOLDER, name + "-with-*.log"))):
        job = os.path.basename(path)[:-4]
        a, b = (seconds_of(n)[COMPARED[name]] for n in (job, job.replace("-with-", "-without-")))
        if a and len(a) == len(b):
            untraced.append(statistics.median(a) / statistics.median(b) - 1)
            bursts.append(burst_seconds(a) - burst_seconds(b))
    if not untraced:
        return say("step time with / without, " + name, "no runs", "", False)
    q = statistics.quantiles(untraced, n=4) if len(untraced) > 1 else untraced * 3
    burst, every = statistics.median(bursts), pace(name + "-with-", by_name)
    whole = statistics.median(untraced) + burst / every
    say("step time with / without, " + name, "%+.2f %%: untraced steps median %+.2f %%, quartiles %+.2f %+.2f, n %d pairs; a burst "
        "%.0f ms, one every %.1f s" % (100 * whole, 100 * statistics.median(untraced), 100 * q[0], 100 * q[2], len(untraced),
                                      1e3 * burst, every), "<= %+.1f %%" % (100 * bar), whole <= bar)


def check_overhead(name, bar, by_name):
    """The same inside one process: hooks on and off in turns, and what a burst of traced steps adds."""
    path = os.path.join(FOLDER, "overhead-%s.json" % name)
    if not os.path.exists(path):
        return
    found, every = json.load(open(path)), pace("overhead-" + name, by_name)
    burst = found["burst_seconds"] if found["burst_seconds"] is not None else float("nan")  # no bar is met by what is unknown
    whole = found["median"] + max(0, burst) / every
    say("step time with hooks / without, " + name, "%+.2f %%: untraced steps of %.1f ms median %+.2f %%, quartiles %+.2f %+.2f, mean "
        "%+.2f +- %.2f, n %d pairs of %d steps; a burst %.0f ms, one every %.1f s" % (
            100 * whole, 1e3 * found["with_seconds"], 100 * found["median"], 100 * found["quartiles"][0], 100 * found["quartiles"][1],
            100 * found["mean"], 100 * found["standard_error"], found["pairs"], found["steps"], 1e3 * burst, every),
        "<= %+.1f %%" % (100 * bar), whole <= bar)


def torch_summary(name):
    """Kernels alone: torch.profiler also lists the GPU side of annotations such as Optimizer.step."""
    summary = json.load(open(os.path.join(FOLDER, name + ".json")))
    work = [r for r in summary["by_name"] if not r["name"].startswith(("Memcpy", "Memset", "Optimizer.", "ProfilerStep"))]
    return dict(summary, kernels=sum(r["count"] for r in work), microseconds=sum(r["microseconds"] for r in work))


def check_torch_profiler(kind, by_name):
    alone, under = torch_summary("torch-%s-alone" % kind), torch_summary("torch-%s-with" % kind)
    say("torch.profiler's kernels under moeprof / alone, " + kind, "%d / %d" % (under["kernels"], alone["kernels"]), "equal",
        under["kernels"] == alone["kernels"])
    db = by_name.get("torch-%s-with" % kind)
    after = one(db, "select count(*) from step where flags=0 and step>7") if db else 0
    say("moeprof records again after torch.profiler, " + kind, "%d whole steps" % after, ">= 1", after >= 1)
    if db and after:
        before_ns, after_ns = (one(db, "select avg(kernel_ns) from step where flags=0 and step" + where) or 0 for where in ("<4", ">7"))
        windows = one(db, "select min(window_ns) from step where flags=0")
        ratio = after_ns / before_ns - 1 if before_ns else float("nan")
        say("kernel time a step after torch.profiler / before, " + kind, "%+.1f %%, shortest window %.1f ms" % (100 * ratio, windows / 1e6),
            "<= 10 %", abs(ratio) <= 0.1 and windows > 1e6)
    first, n = alone["from_step"], alone["steps"]
    ours = by_name.get("torch-%s-plain" % kind)
    if ours:
        count, ns = ours.execute("select sum(n_kernel), sum(kernel_ns) from step where step>=? and step<?",
                                 (first, first + n)).fetchone()
        dc, dt = count / alone["kernels"] - 1, ns / 1e3 / alone["microseconds"] - 1
        say("kernels against torch.profiler, " + kind, "count %d / %d (%+.3f %%), time %+.2f %%" %
            (count, alone["kernels"], 100 * dc, 100 * dt), "<= 0.5 %", abs(dc) <= 0.005 and abs(dt) <= 0.005)
    plain = seconds_of("torch-%s-plain" % kind)[4:]
    steps = seconds_of("torch-%s-alone" % kind)[first + 1:first + n - 1] or [0]
    size = os.path.getsize(os.path.join(FOLDER, "torch-%s-alone.trace.json" % kind))
    path = by_path.get("torch-%s-plain" % kind)
    say("torch.profiler beside it, " + kind, "step %+.1f %% of a step with every launch traced by moeprof, %.1f MB for %d steps; moeprof %.2f MB for %d" %
        (100 * (statistics.median(steps) / statistics.median(plain) - 1), size / 1e6, n,
         os.path.getsize(path) / 1e6 if path else 0, one(ours, "select count(*) from step") if ours else 0), "reported", None)


LINE = re.compile(r"ev (\d) (\d+) step (\d+) (\w+)/(\w+) L(-?\d+) E(-?\d+) dur (\d+) lag \d+ fl (\d+) s\d+ (.*)")
PRODUCT = re.compile(r"nvjet|[gG]emm|gemv|splitK|dot_kernel")
BASE_KIB, EXPERTS, MARKERS = 40000, 128, 256


def check_truth(path):
    events = sorted((int(m[2]), m) for m in map(LINE.match, open(path)) if m)
    marker, right, layer_right, total = None, {}, {}, {}
    for _, m in events:
        step, direction, name = int(m[3]), m[4], m[10]
        if m[1] == "2" and BASE_KIB <= int(name.split()[0]) < BASE_KIB + MARKERS:
            marker = divmod(int(name.split()[0]) - BASE_KIB, EXPERTS)
            continue
        if m[1] != "1" or not PRODUCT.search(name) or marker is None or step < 1:
            continue
        if m[5] in ("attention", "router", "lm_head", "loss", "optimizer"):
            marker = None if m[5] != "router" else marker
            continue
        key = direction
        total[key] = total.get(key, 0) + int(m[8])
        layer_right[key] = layer_right.get(key, 0) + int(m[8]) * (int(m[6]) == marker[0])
        right[key] = right.get(key, 0) + int(m[8]) * ((int(m[6]), int(m[7])) == marker)
    for key in ("forward", "backward"):
        if not total.get(key):
            say("expert products on the right expert, eager " + key, "none seen", ">= 99 %", False)
            continue
        a, b = layer_right[key] / total[key], right[key] / total[key]
        say("expert products on the right layer / expert, eager " + key, "%.3f / %.3f %% of %.1f ms" %
            (100 * a, 100 * b, total[key] / 1e6), ">= 99 / 99 %", a >= 0.99 and b >= 0.99)


def main():
    jobs = [json.loads(line) for line in open(os.path.join(FOLDER, "jobs.jsonl"))]
    found = profiles()
    by_name = {job["name"]: found[job["pid"]][1] for job in jobs if job["pid"] in found}
    global by_path
    by_path = {job["name"]: found[job["pid"]][0] for job in jobs if job["pid"] in found}
    failed = [job["name"] for job in jobs if job["status"] != 0]
    say("trainings that ended well", "%d of %d%s" % (len(jobs) - len(failed), len(jobs), " not: " + " ".join(failed) if failed else ""),
        "all", not failed)
    expected = {job["name"] for job in json.load(open(os.path.join(FOLDER, "jobs.json"))) if job["guest"]}
    missing = sorted(expected - set(by_name))
    say("trainings recorded", "%d of %d %s" % (len(expected) - len(missing), len(expected), " ".join(missing)), "all", not missing)
    for name, db in by_name.items():
        if name.startswith("cover-"):
            check_coverage(name, db)
    check_routing(by_name)
    if os.path.exists(os.path.join(FOLDER, "truth.txt")):
        check_truth(os.path.join(FOLDER, "truth.txt"))
    for kind in ("grouped", "eager"):
        if os.path.exists(os.path.join(FOLDER, "torch-%s-alone.json" % kind)):
            check_torch_profiler(kind, by_name)
    for experts in ("eager", "grouped_mm"):
        if not os.path.exists(os.path.join(FOLDER, "same-%s-without.json" % experts)):
            continue
        a, b = loss_file("same-%s-without" % experts), loss_file("same-%s-with" % experts)
        say("losses of %d steps with and without, %s" % (len(a), experts), "identical" if a == b else "differ", "bit-identical", a == b)
    check_overhead("grouped", 0.005, by_name)
    check_overhead("eager", 0.02, by_name)
    if "pairs" in os.environ.get("PARTS", "").split():
        check_pairs("grouped", 0.005, by_name)
        check_pairs("eager", 0.02, by_name)
    width = max(len(r[0]) for r in rows)
    for check, value, bar, verdict in rows:
        print("%-*s  %-8s %-14s %s" % (width, check, verdict, bar, value))
    sys.exit(any(r[3] == "FAILED" for r in rows))


main()
