/* hopper_emu.cpp: Hopper's own machinery on a CPU: mbarriers, cluster and named barriers, TMA, wgmma. See cuda_emu.h. */
#include "tests/emu/cuda_emu.h"
#include "kernels/hopper_ptx.cuh"
#include "kernels/hopper_wgmma.cuh"

#include <cstring>
#include <map>
#include <vector>

/* ---- mbarriers ---- */

struct mbarrier {
    int n_arrival, missing; // arrivals of a phase, and how many of this one are to come
    int64_t bytes;          // expected and not yet come
    uint32_t phase;
};

static std::map<uint32_t, mbarrier> mbarriers; // by shared address

static mbarrier &barrier_at(uint32_t bar)
{
    auto at = mbarriers.find(bar);
    if (at == mbarriers.end())
        emu_die("an mbarrier that was not initialised");
    return at->second;
}

static void turn(mbarrier &b)
{
    if (b.missing < 0)
        emu_die("more arrivals at an mbarrier than its phase has");
    if (b.missing || b.bytes)
        return;
    b.missing = b.n_arrival;
    b.phase++;
}

void mbar_init(uint32_t bar, int n_arrival)
{
    emu_at(bar, 8);
    mbarriers[bar] = { n_arrival, n_arrival, 0, 0 };
}

void mbar_arrive(uint32_t bar)
{
    mbarrier &b = barrier_at(bar);
    b.missing--;
    turn(b);
}

void mbar_expect(uint32_t bar, uint32_t bytes)
{
    barrier_at(bar).bytes += bytes;
    mbar_arrive(bar);
}

void mbar_wait(uint32_t bar, uint32_t parity)
{
    emu_wait_until([=] { return (barrier_at(bar).phase & 1) != parity; }, "mbarrier", bar);
}

/* ---- barriers of threads ---- */

struct meeting {
    int here, times;
};

static void come(meeting &m, int n_thread)
{
    if (++m.here == n_thread) {
        m.here = 0;
        m.times++;
    }
}

static void meet(meeting &m, int n_thread)
{
    int times = m.times;

    come(m, n_thread);
    emu_wait_until([&m, times] { return m.times != times; }, "a barrier of threads", (uint32_t)n_thread);
}

void cluster_sync(void)
{
    static meeting all;
    __syncwarp();
    meet(all, (int)emu_block_dim.x * 2);
}

static meeting named[2][16];

void named_barrier(int id, int n_thread)
{
    __syncwarp();
    meet(named[emu_rank()][id], n_thread);
}

void named_arrive(int id, int n_thread)
{
    __syncwarp();
    come(named[emu_rank()][id], n_thread);
}

/* ---- TMA ---- */

enum { MAX_DIM = 4 };

struct tensor_map {
    uint8_t *base;
    uint64_t size[MAX_DIM], stride_bytes[MAX_DIM];
    uint32_t n, box[MAX_DIM];
    bool plain; // not swizzled
};
static_assert(sizeof(tensor_map) <= sizeof(CUtensorMap));

/* The driver's own conditions. */
CUresult emu_encode(CUtensorMap *out, CUtensorMapDataType, cuuint32_t n, void *base, const cuuint64_t *size,
                    const cuuint64_t *stride_bytes, const cuuint32_t *box, const cuuint32_t *, CUtensorMapInterleave,
                    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill)
{
    tensor_map m = { (uint8_t *)base, {}, {}, n, {}, swizzle == CU_TENSOR_MAP_SWIZZLE_NONE };

    if (n > MAX_DIM || (uintptr_t)base % 16 || !base || (!m.plain && (swizzle != CU_TENSOR_MAP_SWIZZLE_128B || box[0] * 2 > 128)))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < n; i++) {
        m.size[i] = size[i];
        m.box[i] = box[i];
        m.stride_bytes[i] = i ? stride_bytes[i - 1] : 2;
        if (!size[i] || size[i] > (uint64_t)1 << 32 || !box[i] || box[i] > 256 ||
            (i && (m.stride_bytes[i] % 16 || m.stride_bytes[i] >= (uint64_t)1 << 40)))
            return CUDA_ERROR_INVALID_VALUE;
    }
    memcpy(out, &m, sizeof m);
    return CUDA_SUCCESS;
}

/* 16 bytes move within 128 as the row's number in 8 says; addresses repeat every 1024. */
static uint32_t swizzled(uint32_t at)
{
    return at ^ (at >> 3 & 0x70);
}

static uint32_t box_elements(const tensor_map &m)
{
    uint32_t n = 1;

    for (uint32_t i = 0; i < m.n; i++)
        n *= m.box[i];
    return n;
}

/* Where element e of a box lies in shared memory, the box being at first. */
static uint32_t place(const tensor_map &m, uint32_t first, uint32_t e)
{
    return m.plain ? first + 2 * e : swizzled(first + 2 * e);
}

/* Where element e of a box lies in global memory; NULL: outside. */
static uint8_t *element_at(const tensor_map &m, const int *first, uint32_t e)
{
    uint8_t *p = m.base;

    for (uint32_t i = 0; i < m.n; e /= m.box[i++]) {
        int64_t at = first[i] + (int64_t)(e % m.box[i]);
        if (at < 0 || (uint64_t)at >= m.size[i])
            return NULL;
        p += at * (int64_t)m.stride_bytes[i];
    }
    return p;
}

static tensor_map map_of(const CUtensorMap *map)
{
    tensor_map m;

    memcpy(&m, map, sizeof m);
    return m;
}

/* A box comes to a block: its data, and its bytes to the barrier. */
static void deliver(const tensor_map &m, uint32_t to, const int *first, uint32_t bar)
{
    for (uint32_t e = 0, n = box_elements(m); e < n; e++) {
        uint16_t v = 0;
        if (const uint8_t *from = element_at(m, first, e))
            memcpy(&v, from, 2);
        memcpy(emu_at(place(m, to, e), 2), &v, 2);
    }
    mbarrier &b = barrier_at(bar);
    b.bytes -= 2 * box_elements(m);
    turn(b);
}

void emu_tma_load(uint32_t to, const CUtensorMap *map, const emu_place &first, uint32_t bar, uint32_t ranks)
{
    tensor_map m = map_of(map);

    if (to % 128)
        emu_die("TMA to a misaligned address");
    for (uint32_t rank = 0; rank < 2; rank++)
        if (ranks >> rank & 1)
            emu_later([=] { deliver(m, in_block(to, rank), first.at, in_block(bar, rank)); });
}

void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar)
{
    if ((uintptr_t)from % 16 || bytes % 16 || !bytes)
        emu_die("a bulk copy that is not of sixteens");
    emu_later([=] {
        for (uint32_t i = 0; i < bytes; i += 16)
            memcpy(emu_at(to + i, 16), (const uint8_t *)from + i, 16);
        mbarrier &b = barrier_at(bar);
        b.bytes -= bytes;
        turn(b);
    });
}

void st_async_16(uint32_t to, uint4 v, uint32_t bar)
{
    emu_later([=] {
        memcpy(emu_at(to, 16), &v, 16);
        mbarrier &b = barrier_at(bar);
        b.bytes -= 16;
        turn(b);
    });
}

struct store {
    tensor_map map;
    uint32_t from;
    int at[3];
};

static std::map<unsigned, std::vector<store>> open_stores, stores; // by thread

void tma_store_3d(const CUtensorMap *map, uint32_t from, int x, int y, int z)
{
    if (from % 128)
        emu_die("TMA from a misaligned address");
    open_stores[emu_index()].push_back({ map_of(map), from, { x, y, z } });
}

void tma_store_commit(void)
{
    std::vector<store> &open = open_stores[emu_index()], &all = stores[emu_index()];

    all.insert(all.end(), open.begin(), open.end());
    open.clear();
}

static void carry_out(const store &s)
{
    for (uint32_t e = 0, n = box_elements(s.map); e < n; e++)
        if (uint8_t *to = element_at(s.map, s.at, e))
            memcpy(to, emu_at(place(s.map, s.from, e), 2), 2);
}

void tma_store_wait(void)
{
    for (const store &s : stores[emu_index()])
        carry_out(s);
    stores[emu_index()].clear();
}

/* ---- wgmma ---- */

static std::map<unsigned, std::vector<std::vector<emu_product>>> products; // by thread; the last group is the open one

static float bf16_at(const uint8_t *smem, uint32_t at)
{
    uint16_t v;
    uint32_t word;
    float f;

    memcpy(&v, smem + swizzled(at), 2);
    word = (uint32_t)v << 16;
    memcpy(&f, &word, 4);
    return f;
}

/* Row r and 16 k of an operand. */
static void operand_row(float *v, const uint8_t *smem, uint64_t descriptor, bool mn, int r)
{
    uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4, leading = (uint32_t)(descriptor >> 16 & 0x3fff) << 4,
             stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;

    for (int k = 0; k < 16; k++)
        v[k] = bf16_at(smem, mn ? start + r / 64 * leading + k / 8 * stride + k % 8 * 128 + r % 64 * 2 :
                                  start + r / 8 * stride + r % 8 * 128 + k * 2);
}

static void multiply(const emu_product &p)
{
    const uint8_t *smem = emu_smem_of(emu_rank(), 0, 1);
    int t = (int)threadIdx.x % 128, first = 16 * (t / 32) + t % 32 / 4;
    float a[2][16], b[16];

    for (int i = 0; i < 2; i++)
        operand_row(a[i], smem, p.a, p.a_mn, first + 8 * i);
    for (int j = 0; j < p.n_column / 2; j += 4)
        for (int c = 0; c < 2; c++) {
            operand_row(b, smem, p.b, p.b_mn, 2 * j + 2 * (t % 4) + c);
            for (int i = 0; i < 2; i++) {
                float sum = p.keep ? p.d[j + 2 * i + c] : 0.f;
                for (int k = 0; k < 16; k++)
                    sum += a[i][k] * b[k];
                p.d[j + 2 * i + c] = sum;
            }
        }
}

void emu_wgmma(const emu_product &p)
{
    std::vector<std::vector<emu_product>> &mine = products[emu_index()];

    if (mine.empty())
        mine.emplace_back();
    if (mine.size() == 1 && mine[0].empty() && emu_coin())
        multiply(p);
    else
        mine.back().push_back(p);
}

void wgmma_commit(void)
{
    __syncwarp();
    products[emu_index()].emplace_back();
}

void emu_wgmma_wait(int n_left)
{
    std::vector<std::vector<emu_product>> &mine = products[emu_index()];

    emu_dawdle();
    while ((int)mine.size() - 1 > n_left) {
        for (const emu_product &p : mine.front())
            multiply(p);
        mine.erase(mine.begin());
    }
    __syncwarp();
}

/* ---- the end ---- */

void emu_end_of_cluster(void)
{
    for (const auto &thread : products)
        for (const auto &group : thread.second)
            if (!group.empty())
                emu_die("a product that nobody waits for");
    for (const auto &thread : open_stores)
        if (!thread.second.empty())
            emu_die("a store that nobody commits");
    for (const auto &thread : stores)
        if (!thread.second.empty())
            emu_die("a block that ends before its stores have read its memory");
    products.clear(), open_stores.clear(), stores.clear(), mbarriers.clear();
}
