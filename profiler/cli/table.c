/* The one array of subcommands, in the order in which --help shows them. */
#include "profiler/cli/cmd.h"

const struct cli_cmd cli_table[] = {
    {"run", "[-o FILE] [--swap] -- CMD...", "start a job with the profiler in it and record it",
     cmd_run_main},
    {"top", "[PID...] [--replay FILE] [--once]", "look at running jobs, live", cmd_top_main},
    {"report", "FILE... [--html F] [--md] [--json]...", "what a recorded run did with its time",
     cmd_report_main},
    {"compare", "BEFORE AFTER [--html F] [--md]...", "two recorded runs side by side",
     cmd_compare_main},
    {"swap", "PID on|off|status [--json]",
     "run a job's experts through other kernels, after parity", cmd_swap_main},
    {"ab", "[--arms A,B] [--blocks N] -- CMD...", "before/after inside one job, with an interval",
     cmd_ab_main},
    {"bench", "[--shape NAME] [--tokens N] [--json]",
     "moeprof's own experts kernels, timed on this GPU", cmd_bench_main},
    {"doctor", "", "check this machine, with what to do", cmd_doctor_main},
};

const size_t cli_table_count = countof(cli_table);
