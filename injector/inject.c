/* Start and end of the guest; the one place that knows the order.
 *
 * LD_PRELOAD maps the library into every process of a job: launchers, `ls`, data workers, ptxas. The
 * constructor there only names us as CUDA's injection library, so that nothing else happens before a
 * process initialises CUDA. One that does gets a thread that sleeps until torch is there and a model
 * trains.
 */
#include "injector/inject.h"

#include "injector/agent.h"
#include "injector/ctl.h"
#include "injector/guest.h"
#include "injector/sample.h"
#include "injector/trace.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define EXPORT __attribute__((visibility("default")))

static void copy_value(char *out, size_t bytes, const char *value, size_t n)
{
    snprintf(out, bytes, "%.*s", (int)n, value);
}

static void trace_to(struct inj_opts *o, const char *value, size_t n)
{
    copy_value(o->trace, sizeof o->trace, value, n);
    atomic_store(&inj_trace_wanted, o->trace[0] != '\0');
}

static void trace_steps(struct inj_opts *o, const char *value, size_t n)
{
    char text[sizeof o->bad_steps];
    int first, on, off, used = 0;

    copy_value(text, sizeof text, value, n);
    if (strcmp(text, "all") == 0)
        inj_sample_mode(INJ_SAMPLE_ALWAYS);
    else if (sscanf(text, "%d/%d/%d%n", &first, &on, &off, &used) == 3 && !text[used] && first > 0)
        inj_sample_init(first, on, off);
    else
        snprintf(o->bad_steps, sizeof o->bad_steps, "%s", text);
}

/* "key=value,key=value"; unknown keys are skipped: a newer tool may know more. */
static void parse_options(struct inj_opts *o, const char *text)
{
    while (text && *text) {
        size_t n = strcspn(text, ","), key = strcspn(text, "=,");
        const char *value = text + (key < n ? key + 1 : n);
        size_t bytes = (size_t)(text + n - value);

        if (strncmp(text, "dir=", 4) == 0)
            copy_value(o->dir, sizeof o->dir, value, bytes);
        else if (strncmp(text, "session=", 8) == 0)
            copy_value(o->session, sizeof o->session, value, bytes);
        else if (strncmp(text, "trace=", 6) == 0)
            trace_to(o, value, bytes);
        else if (strncmp(text, "swap=", 5) == 0)
            copy_value(o->swap, sizeof o->swap, value, bytes);
        else if (strncmp(text, "cuda=none", 9) == 0)
            o->no_cuda = true;
        else if (strncmp(text, "leave=", 6) == 0)
            o->leave = *value != '0';
        else if (strncmp(text, "steps=", 6) == 0)
            trace_steps(o, value, bytes);
        text += n + (text[n] == ',');
    }
}

static void in_forked_child(void)
{
    atomic_store(&inj.life, INJ_DEAD);
    atomic_store(&inj.shm, NULL); /* it is the parent's; no other thread is here */
    inj_ctl_forked();
}

static int start(const char *options)
{
    int unborn = INJ_UNBORN, rc;

    if (getauxval(AT_SECURE))
        return MP_EPERM;
    if (!atomic_compare_exchange_strong(&inj.life, &unborn, INJ_ALIVE))
        return unborn == INJ_ALIVE ? MP_OK : MP_EGONE;
    parse_options(&inj.opts, options);
    pthread_atfork(NULL, NULL, in_forked_child);
    rc = inj_agent_start();
    if (rc)
        atomic_store(&inj.life, INJ_DEAD); /* nobody would empty what the hooks write */
    return rc;
}

EXPORT int InitializeInjection(void)
{
    start(secure_getenv("MOEPROF"));
    return 1;
}

EXPORT int moeprof_attach(const char *options)
{
    return start(options ? options : secure_getenv("MOEPROF"));
}

__attribute__((constructor)) static void preloaded(void)
{
    const char *preload = secure_getenv("LD_PRELOAD");
    Dl_info self;

    if (preload && strstr(preload, "libmoeprof.so") && dladdr((void *)preloaded, &self) &&
        self.dli_fname)
        setenv("CUDA_INJECTION64_PATH", self.dli_fname, 0);
}

__attribute__((destructor)) static void ending(void)
{
    if (inj_alive())
        inj_agent_stop();
    atomic_store(&inj.life, INJ_DEAD);
}
