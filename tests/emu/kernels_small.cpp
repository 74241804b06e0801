/* kernels_small.cpp: the cases of cases.h. Linked twice: with the kernels' source emulated on the CPU (make emu), and with the
 * library's objects for a GPU, where it is what compute-sanitizer runs (tests/gpu/kernels_sanitize.sh).
 *     kernels_small [WORD] [--portable]     cases whose name has the word
 *     kernels_small [--portable] --random N [FIRST]     N cases drawn by lot, from number FIRST on */
#include "tests/emu/cases.h"

#include "kernels/moe_kernels.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

uint32_t case_flags;

void case_check(int rc, const char *what)
{
    if (rc)
        printf("%s gives %d\n", what, rc), exit(1);
}

int main(int argc, char **argv)
{
    const char *word = "";
    int by_lot = 0, first = 0;

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--portable"))
            case_flags |= MK_FLAG_PORTABLE;
        else if (!strcmp(argv[i], "--checked"))
            case_flags |= MK_FLAG_CHECKED;
        else if (!strcmp(argv[i], "--random") && i + 1 < argc)
            by_lot = atoi(argv[++i]), first = i + 1 < argc ? atoi(argv[++i]) : 0;
        else
            word = argv[i];
    if (by_lot)
        return cases_agree_by_lot(by_lot, first) != 0;
    return (cases_agree(word) + cases_route(word) + cases_refuse(word)) != 0;
}
