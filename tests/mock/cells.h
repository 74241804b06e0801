/* What a guest published, as text that can be compared: its steps, and its cells summed over them. */
#ifndef TESTS_MOCK_CELLS_H
#define TESTS_MOCK_CELLS_H

#include <stdio.h>

/* From the shared file of process pid in dir. 0, or 1 with a sentence on stderr. */
int cells_print(FILE *out, const char *dir, int pid);

#endif
