/* Largest-remainder apportionment in integers, without memory of its own. */
#include "profiler/core/step.h"

__extension__ typedef unsigned __int128 wide;

/* Remainder threshold: all shares with a remainder above it get one more. out holds the remainders. */
static uint64_t threshold(const uint64_t *out, size_t n, uint64_t sum, uint64_t left)
{
    uint64_t low = 0, high = sum;

    while (low < high) {
        uint64_t mid = low + (high - low) / 2, above = 0;

        for (size_t i = 0; i < n; i++)
            above += out[i] > mid;
        if (above > left)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

bool mp_split(uint64_t total, const uint32_t *count, size_t n, uint64_t *out)
{
    uint64_t sum = 0, left = total, limit, at_limit;

    for (size_t i = 0; i < n; i++) {
        sum += count[i];
        out[i] = 0;
    }
    if (sum == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        left -= (uint64_t)((wide)total * count[i] / sum);
        out[i] = (uint64_t)((wide)total * count[i] % sum);
    }
    limit = threshold(out, n, sum, left);
    at_limit = left;
    for (size_t i = 0; i < n; i++)
        at_limit -= out[i] > limit;
    for (size_t i = 0; i < n; i++) {
        bool more = out[i] > limit;

        if (out[i] == limit && at_limit > 0) {
            more = true;
            at_limit--;
        }
        out[i] = (uint64_t)((wide)total * count[i] / sum) + more;
    }
    return true;
}
