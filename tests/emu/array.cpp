/* array.cpp: see array.h. */
#include "tests/emu/array.h"

#include "tests/emu/device.h"

#include <cmath>
#include <cstdlib>

extern "C" {
#include "kernels/ref_moe.h"
}

static uint64_t state = 1;
bool on_device;

void lot_begin(uint64_t seed)
{
    state = seed;
}

double lot_draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 40) / (double)(1 << 24) * 2 - 1;
}

array::array(uint32_t type, size_t count, double scale)
    : dtype(type), n(count), bytes(count * mk_dtype_bytes(type)), dev(dev_alloc(bytes.size()))
{
    for (size_t i = 0; i < n; i++)
        mk_ref_put(bytes.data(), dtype, (int64_t)i, scale == 0 ? NAN : scale * lot_draw());
    put();
}

array::array(const array &a) : dtype(a.dtype), n(a.n), bytes(a.bytes), dev(dev_alloc(bytes.size()))
{
    put();
}

array::~array()
{
    dev_free(dev);
}

void *array::at(size_t i)
{
    return (on_device ? (char *)dev : bytes.data()) + i * mk_dtype_bytes(dtype);
}

double array::value(size_t i)
{
    return mk_ref_get(bytes.data(), dtype, (int64_t)i);
}

void array::put(void)
{
    dev_put(dev, bytes.data(), bytes.size());
}

void array::get(void)
{
    dev_get(bytes.data(), dev, bytes.size());
}

blank::blank(size_t n) : p(NULL)
{
    if (on_device)
        p = dev_alloc(n);
    else if (posix_memalign(&p, 256, n + !n))
        abort();
}

blank::~blank()
{
    on_device ? dev_free(p) : free(p);
}
