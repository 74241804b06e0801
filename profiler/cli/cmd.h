/* The subcommands. To add one: a file cmd_NAME.c with `int cmd_NAME_main(int argc, char **argv)`, its
 * declaration here, a row in table.c, a section in moeprof.1, a test in tests/e2e.
 *
 * argv[0] is the subcommand's name. The answer is the exit code.
 */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include "profiler/core/base.h"

enum cli_exit { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_GONE = 3, CLI_PARITY = 4 };

struct cli_cmd {
    const char *name, *args, *summary;
    int (*main)(int argc, char **argv); /* NULL: not in this build, not shown */
};

extern const struct cli_cmd cli_table[];
extern const size_t cli_table_count;

int cmd_run_main(int argc, char **argv);
int cmd_report_main(int argc, char **argv);
int cmd_compare_main(int argc, char **argv);
int cmd_ab_main(int argc, char **argv);
int cmd_bench_main(int argc, char **argv);
int cmd_doctor_main(int argc, char **argv);
int cmd_swap_main(int argc, char **argv);
/* In cmd_top.c, beside the dashboard; weak, so that a build without it has no row. */
int cmd_top_main(int argc, char **argv) __attribute__((weak));

/* "moeprof: <sentence>" on stderr. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, then how to get help; returns CLI_USAGE. */
int cli_usage(const char *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For getopt_long with opterr = 0: names the word that is wrong; returns CLI_USAGE. */
int cli_bad_option(const char *cmd, int answer, char **argv);
#ifdef __clang_analyzer__ /* it sees one file at a time */
#define cli_usage(...)      ((void)(cli_usage)(__VA_ARGS__), CLI_USAGE)
#define cli_bad_option(...) ((void)(cli_bad_option)(__VA_ARGS__), CLI_USAGE)
#endif
/* err as a sentence; returns CLI_FAILED. */
int cli_fail(const struct mp_err *err);

#endif
