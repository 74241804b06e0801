/* Writes a synthetic profile of any size: for speed (millions of events), for width (94 layers of 1024
 * experts), for hostile names. */
#include "tests/html/make_profile.h"

static long number(int argc, char **argv, const char *key, long otherwise)
{
    size_t n = strlen(key);

    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=')
            return strtol(argv[i] + n + 1, NULL, 10);
        else if (strcmp(argv[i], key) == 0)
            return 1;
    return otherwise;
}

int main(int argc, char **argv)
{
    struct made m = {
        .steps = (int)number(argc, argv, "steps", 12),
        .layers = (int)number(argc, argv, "layers", 4),
        .experts = (int)number(argc, argv, "experts", 128),
        .events = number(argc, argv, "events", 0),
        .grouped = number(argc, argv, "grouped", 0),
        .checkpoint = number(argc, argv, "checkpoint", 0),
        .hostile = number(argc, argv, "hostile", 0),
        .ab_blocks = (int)number(argc, argv, "ab", 0),
        .no_routing = number(argc, argv, "no-routing", 0),
    };

    if (argc < 2) {
        fputs("usage: gen_profile FILE [steps=N] [events=N] [layers=N] [experts=N] [grouped] "
              "[checkpoint] [hostile] [no-routing] [ab=BLOCKS]\n",
              stderr);
        return 2;
    }
    made_profile(argv[1], &m);
    printf("%llu kernel events\n", (unsigned long long)m.n_event);
    return 0;
}
