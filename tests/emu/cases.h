/* cases.h: small problems through the kernels, by kind. Each case prints a line, "ok" or "FAIL" and its name. */
#ifndef TESTS_EMU_CASES_H
#define TESTS_EMU_CASES_H

#include <cstddef>
#include <cstdint>
#include <cstring>

/* Of every call that follows: MK_FLAG_PORTABLE or 0. */
extern uint32_t case_flags;

/* A code that is no success ends the program. */
void case_check(int rc, const char *what);

/* How many of the cases whose name has the word fail. */
template <typename C, size_t N>
int count_failed(const C (&all)[N], const char *word, bool (*passes)(const C &))
{
    int n = 0;

    for (const C &c : all)
        if (strstr(c.name, word))
            n += !passes(c);
    return n;
}

/* Those below return how many cases failed; of word, only those whose name has it. */

/* agree.cpp: forward and backward against the CPU reference; n cases drawn by lot, from number first on. */
int cases_agree(const char *word);
int cases_agree_by_lot(int n, int first);

/* routing.cpp: routing alone, bit for bit. */
int cases_route(const char *word);

/* refuse.cpp: what is refused before anything is launched. */
int cases_refuse(const char *word);

#endif
