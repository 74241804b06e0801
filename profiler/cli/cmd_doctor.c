/* moeprof doctor: what this machine has of what moeprof needs, a line each: ok, warn or fail, and what
 * to do. One row in the table at the end adds a check. Looks only; changes nothing but the job
 * directory, which it makes when it is missing, as `run` would. */
#include "profiler/cli/cmd.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "profiler/cli/launch.h"
#include "profiler/cli/machine.h"
#include "profiler/core/shm.h"

enum level { OK, WARN, FAIL };

static int worst;

static void say(enum level level, const char *subject, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void say(enum level level, const char *subject, const char *fmt, ...)
{
    static const char *const word[] = {"ok", "warn", "fail"};
    va_list ap;

    printf("%-5s %-14s ", word[level], subject);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    worst = (int)level > worst ? (int)level : worst;
}

/* ---- checks ------------------------------------------------------------------------------------- */

static void check_gpu(void)
{
    struct cli_gpus gpus;
    struct mp_err err;

    if (cli_gpus_read(&gpus, &err)) {
        say(FAIL, "GPU", "%s", err.msg);
        return;
    }
    for (unsigned i = 0; i < gpus.n; i++)
        say(OK, "GPU", "%u: %s, %llu MiB, driver %s", i, gpus.gpu[i].name,
            (unsigned long long)(gpus.gpu[i].mem_bytes >> 20), gpus.driver);
    if (gpus.n == 0)
        say(FAIL, "GPU",
            "driver %s sees no GPU: check the container's devices and CUDA_VISIBLE_DEVICES",
            gpus.driver);
}

static void check_cuda(void)
{
    int version;

    if (cli_cuda_version(&version))
        say(FAIL, "CUDA",
            "no libcuda.so.1: install the NVIDIA driver, or start the container with its GPUs");
    else
        say(OK, "CUDA", "the driver speaks CUDA %d.%d", version / 1000, version % 1000 / 10);
}

static void check_python(void)
{
    struct cli_python py;

    if (cli_python_read(&py)) {
        say(WARN, "Python",
            "no python3 in PATH: fine where jobs bring their own; else activate the job's "
            "environment");
        return;
    }
    say(OK, "Python", "%s, %s", py.version, py.path);
    if (*py.torch)
        say(OK, "torch", "%s%s%s", py.torch, *py.transformers ? ", transformers " : "",
            py.transformers);
    else
        say(WARN, "torch",
            "not in this Python: activate the job's environment before 'moeprof doctor'");
    if (*py.cupti)
        say(OK, "CUPTI", "%s (a job uses the one that its own torch loads)", py.cupti);
    else if (cli_cupti_find(py.cupti, sizeof py.cupti))
        say(OK, "CUPTI", "%s", py.cupti);
    else
        say(WARN, "CUPTI",
            "not found: torch wheels bring it (nvidia-cuda-cupti), or install the CUDA toolkit's");
}

static void check_guest(void)
{
    char path[4096];
    struct mp_err err;

    if (cli_guest_path(path, sizeof path, &err))
        say(FAIL, "guest library", "%s", err.msg);
    else
        say(OK, "guest library", "%s", path);
}

static void check_build(void)
{
    say(HAVE_SQLITE ? OK : FAIL, "build", "profiles %s, raw records %s, model description %s",
        HAVE_SQLITE ? "yes" : "no (install libsqlite3-dev, make)",
        HAVE_ZSTD ? "yes" : "no (install libzstd-dev, make)",
        HAVE_JANSSON ? "yes" : "no (install libjansson-dev, make)");
}

static void check_environment(void)
{
    const char *injection = getenv("CUDA_INJECTION64_PATH");

    if (injection && *injection)
        say(WARN, "environment",
            "CUDA_INJECTION64_PATH is '%s': 'moeprof run' replaces it, what put it there loses its "
            "data",
            injection);
    else
        say(OK, "environment", "no other profiler is set to enter jobs");
}

static void check_directory(void)
{
    char dir[2048];
    struct mp_err err;
    struct statvfs fs;
    unsigned long long free_bytes, jobs;

    if (cli_job_dir(dir, sizeof dir, &err)) {
        say(FAIL, "job directory", "%s", err.msg);
        return;
    }
    if (statvfs(dir, &fs) != 0) {
        say(FAIL, "job directory", "cannot look at '%s': %s", dir, strerror(errno));
        return;
    }
    free_bytes = (unsigned long long)fs.f_bavail * fs.f_frsize;
    jobs = free_bytes / sizeof(struct mp_shm);
    say(jobs >= 16 ? OK
        : jobs     ? WARN
                   : FAIL,
        "job directory", "%s, yours alone, room for %llu processes (%llu MiB free)%s", dir, jobs,
        free_bytes >> 20,
        jobs >= 16 ? "" : ": give the container a larger /dev/shm, or set XDG_RUNTIME_DIR");
}

static void check_ptrace(void)
{
    FILE *f = fopen("/proc/sys/kernel/yama/ptrace_scope", "r");
    int scope = 0;

    if (f && fscanf(f, "%d", &scope) != 1)
        scope = 0;
    if (f)
        fclose(f);
    if (scope >= 2)
        say(WARN, "ptrace",
            "scope %d: running jobs cannot be entered; 'moeprof run' does not need it", scope);
    else
        say(OK, "ptrace", "scope %d", scope);
}

/* ---- running guests ------------------------------------------------------------------------------ */

static const char *const state_name[] = {"asleep", "recording", "aside for another profiler", "off",
                                         "ended"};
static const char *const feature_name[MP_FEATURE_COUNT] = {
    "GPU activity", "launches", "Python bridge", "autograd", "routing", "tokens", "clocks, power"};

static void guest_features(const struct mp_reader *r)
{
    char why[160];

    for (int i = 0; i < MP_FEATURE_COUNT; i++)
        if (mp_reader_feature(r, (enum mp_feature)i, why, sizeof why) == MP_FEATURE_FAILED)
            say(WARN, "", "  %s: %s", feature_name[i], why);
}

static void guest_log(const struct mp_reader *r)
{
    uint64_t n = atomic_load(&r->shm->n_log), i = n < MP_LOG_CAP ? 0 : n - MP_LOG_CAP + 1;
    struct mp_log_row row;

    for (; i < n; i++)
        if (mp_reader_log(r, i, &row) && row.level > 0)
            say(WARN, "", "  %s%s", row.text, row.count > 1 ? " (repeatedly)" : "");
}

static int guest_show(void *arg, int pid)
{
    struct mp_reader r;
    struct mp_err err;
    char comm[64];
    unsigned state;

    if (mp_reader_open(&r, arg, pid, false, &err)) {
        say(WARN, "process", "%d: %s", pid, err.msg);
        return 0;
    }
    if (mp_reader_alive(&r)) {
        state = atomic_load(&r.shm->state);
        mp_shm_text(comm, sizeof comm, r.shm->comm, sizeof r.shm->comm);
        say(state == MP_GUEST_OFF ? WARN : OK, "process", "%d %s: %s, step %u", pid, comm,
            state < countof(state_name) ? state_name[state] : "?", atomic_load(&r.shm->step));
        guest_features(&r);
        guest_log(&r);
    }
    mp_reader_close(&r);
    return 0;
}

static void check_guests(void)
{
    char dir[2048];

    if (cli_job_dir(dir, sizeof dir, NULL) == MP_OK)
        mp_shm_each(dir, guest_show, dir, NULL);
}

static void (*const check[])(void) = {check_gpu,       check_cuda,   check_python,
                                      check_guest,     check_build,  check_environment,
                                      check_directory, check_ptrace, check_guests};

int cmd_doctor_main(int argc, char **argv)
{
    static const struct option long_option[] = {{"help", no_argument, NULL, 'h'}, {0}};
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":h", long_option, NULL)) != -1) {
        if (c != 'h')
            return cli_bad_option("doctor", c, argv);
        puts("usage: moeprof doctor\n\nChecks what this machine has of what moeprof needs. Exit "
             "code 1 when "
             "something is missing\nwithout which no job can be recorded.");
        return CLI_OK;
    }
    if (optind < argc)
        return cli_usage("doctor", "unexpected word '%s'", argv[optind]);
    worst = OK;
    for (size_t i = 0; i < countof(check); i++)
        check[i]();
    return worst == FAIL ? CLI_FAILED : CLI_OK;
}
