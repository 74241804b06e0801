/* cuda_emu.cpp: see cuda_emu.h. */
#include "tests/emu/cuda_emu.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <ucontext.h>
#include <vector>

enum state { RUNS, AT_BLOCK, AT_WARP, DONE };

struct copy {
    uint32_t to;
    const void *from;
    bool live;
};

struct fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    dim3 thread;
    state now;
    int turn; // which of the two exchange buffers comes next
    std::vector<std::vector<copy>> groups;
};

enum { STACK_BYTES = 256 << 10, MAX_THREAD = 1024, WORDS = 8 };

dim3 emu_thread, emu_block, emu_block_dim, emu_grid_dim;
static std::vector<fiber> fibers(MAX_THREAD);
static fiber *current;
static ucontext_t scheduler;
static std::vector<uint8_t> smem;
static uint32_t words[MAX_THREAD / 32][2][32 * WORDS];
static const std::function<void()> *kernel;

static void die(const char *what)
{
    fprintf(stderr, "emulated kernel: %s, thread %u of block (%u, %u)\n", what, emu_thread.x, emu_block.x, emu_block.y);
    abort();
}

void emu_sync_grid(void)
{
    die("blocks that wait for each other");
}

uint8_t *emu_smem(void)
{
    return smem.data();
}

static void enter(void)
{
    (*kernel)();
    current->now = DONE;
    swapcontext(&current->context, &scheduler);
}

static void leave(state to)
{
    current->now = to;
    swapcontext(&current->context, &scheduler);
}

void emu_sync_block(void)
{
    leave(AT_BLOCK);
}

const uint32_t *emu_exchange(const uint32_t *v, int n)
{
    uint32_t *buffer = words[emu_thread.x / 32][current->turn];

    memcpy(buffer + emu_thread.x % 32 * WORDS, v, (size_t)n * 4);
    current->turn ^= 1; // the other buffer next: nobody writes this one before all have read it
    leave(AT_WARP);
    return buffer;
}

void emu_copy(uint32_t to, const void *from, bool live)
{
    if (to % 16 || to + 16 > smem.size())
        die("cp.async to a misaligned or outside address of shared memory");
    if (live && (uintptr_t)from % 16)
        die("cp.async from a misaligned address");
    current->groups.back().push_back({ to, from, live });
}

void emu_commit(void)
{
    current->groups.emplace_back();
}

/* The last group is the open one. */
void emu_wait(int n_left)
{
    std::vector<std::vector<copy>> &groups = current->groups;

    while ((int)groups.size() - 1 > n_left) {
        for (const copy &c : groups.front()) {
            memset(smem.data() + c.to, 0, 16);
            if (c.live)
                memcpy(smem.data() + c.to, c.from, 16);
        }
        groups.erase(groups.begin());
    }
}

static void resume(fiber &f)
{
    current = &f;
    emu_thread = f.thread;
    swapcontext(&scheduler, &f.context);
}

/* Runs a warp until every lane waits for the block or is done. */
static void run_warp(fiber *lane)
{
    for (;;) {
        int n[4] = {};
        for (int i = 0; i < 32; i++) {
            if (lane[i].now == RUNS)
                resume(lane[i]);
            n[lane[i].now]++;
        }
        if (!n[AT_WARP])
            return;
        if (n[AT_WARP] != 32)
            die("a warp-wide instruction that not all lanes reach");
        for (int i = 0; i < 32; i++)
            lane[i].now = RUNS;
    }
}

static void start(fiber &f, unsigned i)
{
    if (!f.stack)
        f.stack.reset(new char[STACK_BYTES]);
    f.thread = dim3(i, 0, 0);
    f.now = RUNS;
    f.turn = 0;
    f.groups.assign(1, {});
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f.context, enter, 0);
}

static void run_block(unsigned n_thread)
{
    std::fill(smem.begin(), smem.end(), 0xff); // some kernels have none
    for (unsigned i = 0; i < n_thread; i++)
        start(fibers[i], i);
    for (bool waits = true; waits;) {
        waits = false;
        for (unsigned i = 0; i < n_thread; i += 32)
            run_warp(&fibers[i]);
        for (unsigned i = 0; i < n_thread; i++)
            if (fibers[i].now == AT_BLOCK) {
                fibers[i].now = RUNS;
                waits = true;
            }
    }
}

void emu_blocks(const emu_config &config, const std::function<void()> &body)
{
    kernel = &body;
    emu_block_dim = config.block;
    emu_grid_dim = config.grid;
    smem.assign(config.smem_bytes, 0);
    for (unsigned z = 0; z < config.grid.z; z++)
        for (unsigned y = 0; y < config.grid.y; y++)
            for (unsigned x = 0; x < config.grid.x; x++) {
                emu_block = dim3(x, y, z);
                run_block(config.block.x);
            }
}
