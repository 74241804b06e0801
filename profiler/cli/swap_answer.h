/* What a guest answered to a status or a swap, and how it is shown. */
#ifndef CLI_SWAP_ANSWER_H
#define CLI_SWAP_ANSWER_H

#include "profiler/core/wire.h"

struct cli_swap_answer {
    struct mp_msg *row;
    size_t n, cap;
};

/* Copies; false without memory. */
bool cli_swap_answer_add(struct cli_swap_answer *a, const struct mp_msg *msg);
void cli_swap_answer_free(struct cli_swap_answer *a);

/* Its last row; there is one. */
const struct mp_msg *cli_swap_answer_done(const struct cli_swap_answer *a);

void cli_swap_text(const struct cli_swap_answer *a, int pid, const char *verb);
void cli_swap_json(const struct cli_swap_answer *a, int pid, const char *verb);

#endif
