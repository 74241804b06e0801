/* cuda_emu.cpp: see cuda_emu.h. */
#include "tests/emu/cuda_emu.h"

#include "tests/emu/stack.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

enum state { RUNS, AT_BLOCK, AT_WARP, WAITS, LATER, DONE };

struct copy {
    uint32_t to;
    const void *from;
    bool live;
};

struct fiber {
    emu_stack stack;
    dim3 thread, block;
    state now;
    std::function<bool()> ready; // WAITS: for this
    const char *what;            // and its name
    uint32_t which;
    int turn;                    // which of the two exchange buffers comes next
    std::vector<std::vector<copy>> groups;
};

enum { MAX_THREAD = 1024, MAX_CLUSTER = 2, WORDS = 8 };

dim3 emu_thread, emu_block, emu_block_dim, emu_grid_dim;
static std::vector<fiber> fibers(MAX_THREAD); // of the blocks that run: one, or a cluster's
static fiber *current;
static std::vector<uint8_t> smem[MAX_CLUSTER];
static uint32_t words[MAX_THREAD / 32][2][32 * WORDS];
static std::vector<std::function<void()>> later;
static const std::function<void()> *kernel;
static emu_config running;

void emu_die(const char *what)
{
    fprintf(stderr, "emulated kernel: %s, thread %u of block (%u, %u)\n", what, emu_thread.x, emu_block.x, emu_block.y);
    abort();
}

void emu_sync_grid(void)
{
    emu_die("blocks that wait for each other");
}

unsigned emu_rank(void)
{
    return (unsigned)((current - fibers.data()) / running.block.x);
}

uint8_t *emu_smem(void)
{
    return smem[emu_rank()].data();
}

uint8_t *emu_smem_of(unsigned rank, uint32_t at, uint32_t n)
{
    if (rank >= running.n_cluster || at + n > smem[rank].size())
        emu_die("an address outside of shared memory");
    return smem[rank].data() + at;
}

unsigned emu_index(void)
{
    return (unsigned)(current - fibers.data());
}

/* A generator of its own: the same order of events wherever it runs. */
static uint32_t chance(uint32_t n)
{
    static uint64_t state = getenv("EMU_SEED") ? strtoull(getenv("EMU_SEED"), NULL, 10) : 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

bool emu_coin(void)
{
    return chance(2);
}

static void leave(state to)
{
    current->now = to;
    emu_switch_back(current->stack);
}

static void enter(void)
{
    (*kernel)();
    leave(DONE);
}

void emu_sync_block(void)
{
    leave(AT_BLOCK);
}

void emu_wait_until(const std::function<bool()> &ready, const char *what, uint32_t which)
{
    if (ready())
        return;
    current->ready = ready;
    current->what = what;
    current->which = which;
    leave(WAITS);
}

void emu_dawdle(void)
{
    if (emu_coin())
        leave(LATER);
}

void emu_later(const std::function<void()> &event)
{
    later.push_back(event);
}

/* One of the events that may happen at any time, does. */
static bool happen(void)
{
    if (later.empty())
        return false;
    std::swap(later[chance((uint32_t)later.size())], later.back());
    std::function<void()> event = later.back();
    later.pop_back();
    event();
    return true;
}

const uint32_t *emu_exchange(const uint32_t *v, int n)
{
    uint32_t *buffer = words[emu_index() / 32][current->turn];

    memcpy(buffer + emu_thread.x % 32 * WORDS, v, (size_t)n * 4);
    current->turn ^= 1; // the other buffer next: nobody writes this one before all have read it
    leave(AT_WARP);
    return buffer;
}

void emu_copy(uint32_t to, const void *from, bool live)
{
    if (to % 16)
        emu_die("cp.async to a misaligned address of shared memory");
    emu_smem_of(emu_rank(), to, 16);
    if (live && (uintptr_t)from % 16)
        emu_die("cp.async from a misaligned address");
    current->groups.back().push_back({ to, from, live });
}

void emu_commit(void)
{
    current->groups.emplace_back();
}

static void land(uint8_t *to, const std::vector<copy> &copies)
{
    for (const copy &c : copies) {
        memset(to + c.to, 0, 16);
        if (c.live)
            memcpy(to + c.to, c.from, 16);
    }
}

/* The last group is the open one. */
void emu_wait(int n_left)
{
    std::vector<std::vector<copy>> &groups = current->groups;

    while ((int)groups.size() - 1 > n_left) {
        land(emu_smem(), groups.front());
        groups.erase(groups.begin());
    }
}

void emu_copies_then(const std::function<void()> &event)
{
    std::vector<copy> copies = current->groups.back();
    uint8_t *to = emu_smem();

    current->groups.assign(1, {});
    emu_later([=] {
        land(to, copies);
        event();
    });
}

static void resume(fiber &f)
{
    current = &f;
    emu_thread = f.thread;
    emu_block = f.block;
    emu_switch_to(f.stack);
}

/* Runs a warp until no lane can go on; false if none could. A warp-wide instruction is done when all lanes have come. */
static bool run_warp(fiber *lane)
{
    for (bool any = false;; any = true) {
        int n[DONE + 1] = {};
        bool ran = false;
        for (int i = 0; i < 32; i++) {
            if (lane[i].now == WAITS && lane[i].ready())
                lane[i].now = RUNS;
            if (lane[i].now == RUNS) {
                resume(lane[i]);
                ran = true;
            }
            n[lane[i].now]++;
        }
        if (n[AT_WARP] == 32)
            for (int i = 0; i < 32; i++)
                lane[i].now = RUNS;
        else if (!ran)
            return any;
    }
}

static void start(unsigned i)
{
    fiber &f = fibers[i];

    f.thread = dim3(i % running.block.x, 0, 0);
    f.block = emu_block;
    f.block.x += i / running.block.x;
    f.now = RUNS;
    f.turn = 0;
    f.groups.assign(1, {});
    emu_stack_start(f.stack, enter);
}

/* Whoever let others go first goes on. */
static bool pass_dawdlers(unsigned n)
{
    bool any = false;

    for (unsigned i = 0; i < n; i++)
        if (fibers[i].now == LATER) {
            fibers[i].now = RUNS;
            any = true;
        }
    return any;
}

/* A block whose threads are all at its barrier, or done, goes on. */
static bool pass_barrier(fiber *thread, unsigned n)
{
    bool waits = false;

    for (unsigned i = 0; i < n; i++)
        if (thread[i].now == AT_BLOCK)
            waits = true;
        else if (thread[i].now != DONE)
            return false;
    for (unsigned i = 0; waits && i < n; i++)
        if (thread[i].now == AT_BLOCK)
            thread[i].now = RUNS;
    return waits;
}

static bool all_done(unsigned n)
{
    return std::all_of(fibers.begin(), fibers.begin() + n, [](const fiber &f) { return f.now == DONE; });
}

/* Where nothing can go on, an event must come, or the kernel would hang. */
static void stuck(unsigned n)
{
    if (happen())
        return;
    for (unsigned i = 0; i < n; i += 32) {
        const fiber &f = fibers[i];
        fprintf(stderr, "  block %u, warp %u: %s %x\n", f.block.x, f.thread.x / 32,
                f.now == WAITS   ? f.what :
                f.now == AT_WARP ? "a warp-wide instruction that not all lanes reach" :
                                   "done or at the block's barrier",
                f.now == WAITS ? f.which : 0);
    }
    emu_die("waits for what does not come");
}

/* One block, or the blocks of a cluster together. Warps run in an order that changes, and now and then an event happens
 * between two of them. */
static void run_blocks(void)
{
    unsigned n_thread = running.block.x, n = n_thread * running.n_cluster, n_warp = (n + 31) / 32;

    for (unsigned r = 0; r < running.n_cluster; r++)
        std::fill(smem[r].begin(), smem[r].end(), 0xff); // some kernels have none
    for (unsigned i = 0; i < n; i++)
        start(i);
    while (!all_done(n)) {
        bool ran = false;
        for (unsigned i = 0, first = chance(n_warp); i < n_warp; i++) {
            ran |= run_warp(&fibers[(i + first) % n_warp * 32]);
            if (!chance(4))
                ran |= happen();
        }
        ran |= pass_dawdlers(n);
        for (unsigned r = 0; r < running.n_cluster; r++)
            ran |= pass_barrier(&fibers[r * n_thread], n_thread);
        if (!ran)
            stuck(n);
    }
    if (!later.empty())
        emu_die("a copy that nobody waits for");
    emu_end_of_cluster();
}

void emu_blocks(const emu_config &config, const std::function<void()> &body)
{
    kernel = &body;
    running = config;
    emu_block_dim = config.block;
    emu_grid_dim = config.grid;
    if (config.block.x * config.n_cluster > MAX_THREAD || config.grid.x % config.n_cluster)
        emu_die("a grid that does not go into clusters, or a block too large");
    for (unsigned r = 0; r < config.n_cluster; r++)
        smem[r].assign(config.smem_bytes, 0);
    for (unsigned z = 0; z < config.grid.z; z++)
        for (unsigned y = 0; y < config.grid.y; y++)
            for (unsigned x = 0; x < config.grid.x; x += config.n_cluster) {
                emu_block = dim3(x, y, z);
                run_blocks();
            }
}
