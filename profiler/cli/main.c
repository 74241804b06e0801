/* moeprof: finds the subcommand in the table and runs it. Output goes to stdout, everything that is
 * said about it to stderr. */
#include "profiler/cli/cmd.h"

#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void cli_say(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    fputs(isatty(STDERR_FILENO) ? "\r\033[Kmoeprof: " : "moeprof: ",
          stderr); /* over a progress line */
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

int(cli_usage)(const char *cmd, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    cli_say("%s; 'moeprof %s%s--help' shows how", text, cmd, *cmd ? " " : "");
    return CLI_USAGE;
}

int(cli_bad_option)(const char *cmd, int answer, char **argv)
{
    const char *word = optind > 0 ? argv[optind - 1] : "";

    if (answer == ':')
        return cli_usage(cmd, "option '%s' wants a value", word);
    if (optopt && optopt < 256 && strncmp(word, "--", 2) != 0)
        return cli_usage(cmd, "unknown option '-%c'", optopt);
    return cli_usage(cmd, "unknown option '%s'", word);
}

int cli_fail(const struct mp_err *err)
{
    cli_say("%s", err->msg);
    return CLI_FAILED;
}

static int help(void)
{
    puts("moeprof: why a Mixture-of-Experts training is slow, and what it could reach\n");
    for (size_t i = 0; i < cli_table_count; i++)
        if (cli_table[i].main)
            printf("  moeprof %-7s %-36s %s\n", cli_table[i].name, cli_table[i].args,
                   cli_table[i].summary);
    puts("\n  moeprof COMMAND --help says more; man moeprof says all.\n\n"
         "Example:  moeprof run -o a.moeprof -- python train.py && moeprof report a.moeprof\n\n"
         "Exit codes: 0 ok, 1 failed, 2 usage, 3 target lost, 4 parity failed.");
    return CLI_OK;
}

static const struct cli_cmd *find(const char *name)
{
    for (size_t i = 0; i < cli_table_count; i++)
        if (cli_table[i].main && strcmp(cli_table[i].name, name) == 0)
            return &cli_table[i];
    return NULL;
}

static int flush(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_say("cannot write to standard output");
        return code ? code : CLI_FAILED;
    }
    return code;
}

int main(int argc, char **argv)
{
    const struct cli_cmd *cmd;

    setlocale(LC_CTYPE, "");
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error code like a full disk */
    if (argc < 2)
        return cli_usage("", "no command given");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return flush(help());
    if (strcmp(argv[1], "--version") == 0) {
        puts("moeprof " MP_VERSION);
        return flush(CLI_OK);
    }
    cmd = find(argv[1]);
    if (!cmd)
        return cli_usage("", "unknown command '%s'", argv[1]);
    opterr = 0;
    return flush(cmd->main(argc - 1, argv + 1));
}
