/* A process that is no training and gets the guest all the same.
 *
 * Usage: host LIBMOEPROF WORD..   attach, init: the two doors   work: a while of nothing   threads: 8 of them
 *   fork: a child that exits   exec: becomes `echo exec`   full: no thread can be made any more
 * Prints what the doors returned.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int (*attach)(const char *);
static int (*init)(void);

static void *idle(void *arg)
{
    usleep(20000);
    return arg;
}

static void threads(void)
{
    pthread_t t[8];

    for (int i = 0; i < 8; i++)
        pthread_create(&t[i], NULL, idle, NULL);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
}

static void child(void)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (!pid)
        exit(0); /* through the destructors */
    waitpid(pid, NULL, 0);
}

/* Address space for what is there, and for no stack more. */
static void full(void)
{
    struct rlimit limit = {300u << 20, 300u << 20};
    pthread_attr_t attr;

    setrlimit(RLIMIT_AS, &limit);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 400u << 20);
    pthread_setattr_default_np(&attr);
}

static void say(const char *what, int rc)
{
    printf("%s %d\n", what, rc);
}

static void act(const char *word)
{
    if (!strcmp(word, "attach"))
        say(word, attach(NULL));
    else if (!strcmp(word, "init"))
        say(word, init());
    else if (!strcmp(word, "work"))
        usleep(300000);
    else if (!strcmp(word, "threads"))
        threads();
    else if (!strcmp(word, "fork"))
        child();
    else if (!strcmp(word, "full"))
        full();
    else if (!strcmp(word, "exec")) {
        fflush(stdout);
        execlp("echo", "echo", "exec", (char *)NULL);
    }
}

int main(int argc, char **argv)
{
    void *lib = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;

    if (!lib)
        return 2;
    *(void **)&attach = dlsym(lib, "moeprof_attach");
    *(void **)&init = dlsym(lib, "InitializeInjection");
    for (int i = 2; i < argc; i++)
        act(argv[i]);
    return 0;
}
