/* A file that a command writes: beside its name first, renamed when it is whole, so that nobody finds half
 * of it. "-" is standard output. What is no plain file (a pipe, /dev/null) is written to as it stands. */
#ifndef CLI_OUT_FILE_H
#define CLI_OUT_FILE_H

#include <stdio.h>

#include "profiler/core/base.h"

struct cli_out {
    FILE *f;
    const char *path;                /* borrowed */
    char beside[4096], target[4096]; /* empty where nothing is renamed */
};

int cli_out_open(struct cli_out *o, const char *path, struct mp_err *err);
/* With rc != 0 the file is dropped and rc returned; else says "wrote PATH". */
int cli_out_close(struct cli_out *o, int rc, struct mp_err *err);

#endif
