"""The kernels that a phase or a layer is still missing for, the longest first:  unplaced.py FILE.moeprof

A row is a kernel in one phase and pass; `layers` says on how many layers it was booked (-: on none), `blocks` in how many
of the profile's blocks of steps it ran: what ran in one is likely a start's (compiling, tuning).
"""
import sqlite3
import sys

PHASES = ("other", "embed", "attention", "norm", "router", "dispatch", "expert", "combine", "shared_expert", "dense_mlp",
          "lm_head", "loss", "optimizer", "gradient", "comm", "copy")
PASSES = ("forward", "recompute", "backward", "update")
LIMIT = 25
IN_LAYERS = "phase > 0 and phase in (select phase from kernel where layer >= 0 group by phase)"

db = sqlite3.connect(sys.argv[1])
total, blocks = db.execute("select sum(total_ns), count(distinct block) from kernel").fetchone()


def table(title, where):
    ns, rows = db.execute("select sum(total_ns), count(distinct name || '/' || phase || '/' || pass) from kernel where " + where).fetchone()
    print("%s: %.0f us, %.2f %% of all kernels' time, %d kernels" % (title, (ns or 0) / 1e3, 100 * (ns or 0) / (total or 1), rows))
    if not rows:
        return
    print("        us      %  calls  us/call  blocks  layers  pass       phase      kernel")
    for ns, n, seen, layers, run, phase, name in db.execute(
            "select sum(total_ns), sum(n), count(distinct block), count(distinct case when layer >= 0 then layer end), pass, phase, "
            "name.name from kernel join name on name.id = kernel.name where %s group by kernel.name, phase, pass "
            "order by 1 desc limit %d" % (where, LIMIT)):
        print("%10.0f %6.2f %6d %8.1f %7s %7s  %-9s  %-9s  %s" % (
            ns / 1e3, 100 * ns / total, n, ns / n / 1e3, "%d/%d" % (seen, blocks), layers or "-", PASSES[run], PHASES[phase], name[:90]))


table("no phase", "phase = 0")
table("no layer though layers have that phase", "layer < 0 and " + IN_LAYERS)
