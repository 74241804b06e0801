/* lora_pack.cu: adapters as a caller keeps them, in any strides and in fp32 or the problem's type, to the dense form that
 * the products read (plan.h, mk_lora_layout). A block turns 32 x 32 elements through shared memory: reads run along the
 * dimension that is contiguous at the caller's, which in PEFT's lora_B is the expert; writes along the packed one. */
#include "kernels/cuda_call.h"
#include "kernels/common.cuh"
#include "kernels/lora.h"

enum { EXPERT, OUT, RANK }; /* dimensions of an adapter's matrix: OUT is what is not the rank, H or I */

struct pack_job {
    const void *from;            // NULL: zeros
    const int64_t *offset;
    int64_t from_stride[3];
    void *to;
    int64_t to_stride[3];
    int32_t n[3];
    int32_t to_first, first, rank; // packed rows from to_first on; those in [first, first + rank) hold the adapter
    int32_t lane, row;           // dimensions of a tile: lane is contiguous in the packed form, row the other
    int32_t turned;              // the caller's contiguous dimension is row
    int32_t first_block;
    float scale;
};

struct pack_args {
    pack_job job[6];
    int32_t n_job, n_block;
    uint32_t from_dtype;
};

/* Coordinates of a tile's element; the third dimension has one value in a block. */
struct pack_at {
    int v[3];
};

__device__ static pack_at place(const pack_job &j, int row, int lane, int rest)
{
    int other = j.row == EXPERT ? rest : row; // of OUT and RANK the one that is not lane
    return { { j.row == EXPERT ? row : rest, j.lane == OUT ? lane : other, j.lane == RANK ? lane : other } };
}

__device__ static bool inside(const pack_job &j, const pack_at &p)
{
    return p.v[0] < j.n[0] && p.v[1] < j.n[1] && p.v[2] < j.n[2];
}

__device__ static float read(const pack_job &j, const pack_at &p, uint32_t dtype)
{
    int rank = p.v[RANK] + j.to_first - j.first;

    if (!j.from || !inside(j, p) || rank < 0 || rank >= j.rank)
        return 0.f;
    int64_t at = j.offset ? j.offset[p.v[EXPERT]] : p.v[EXPERT] * j.from_stride[EXPERT];
    return load_any(j.from, dtype, at + p.v[OUT] * j.from_stride[OUT] + rank * j.from_stride[RANK]) * j.scale;
}

template <typename T> __device__ static void write(const pack_job &j, const pack_at &p, float v)
{
    int64_t at = p.v[EXPERT] * j.to_stride[EXPERT] + p.v[OUT] * j.to_stride[OUT] + (p.v[RANK] + j.to_first) * j.to_stride[RANK];

    if (inside(j, p))
        ((T *)j.to)[at] = from_float<T>(v);
}

template <typename T> __global__ static void __launch_bounds__(256) lora_pack_v1(const __grid_constant__ pack_args a)
{
    __shared__ float tile[32][33];
    int i = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    while (i + 1 < a.n_job && (int)blockIdx.x >= a.job[i + 1].first_block)
        i++;
    const pack_job &j = a.job[i];
    int block = blockIdx.x - j.first_block, n_row = (j.n[j.row] + 31) / 32, n_lane = (j.n[j.lane] + 31) / 32;
    int row = block % n_row * 32, column = block / n_row % n_lane * 32, rest = block / n_row / n_lane;

    for (int y = warp; y < 32; y += 8) {
        pack_at p = j.turned ? place(j, row + lane, column + y, rest) : place(j, row + y, column + lane, rest);
        tile[j.turned ? lane : y][j.turned ? y : lane] = read(j, p, a.from_dtype);
    }
    __syncthreads();
    for (int y = warp; y < 32; y += 8)
        write<T>(j, place(j, row + y, column + lane, rest), tile[y][lane]);
}

/* ---- host ---- */

static void choose_tile(pack_job *j)
{
    bool by_expert = !j->offset && j->from_stride[EXPERT] == 1 && j->n[EXPERT] > 1;

    j->lane = j->to_stride[OUT] == 1 ? OUT : RANK;
    int other = j->lane == OUT ? RANK : OUT;
    j->row = by_expert ? (int)EXPERT : other;
    j->turned = by_expert || (j->from_stride[j->lane] != 1 && j->from_stride[other] == 1);
}

static void add(pack_args *a, pack_job j, const mk_matrix *m, bool out_is_row)
{
    j.from = m->base;
    j.offset = m->expert_offset;
    j.from_stride[EXPERT] = m->stride_expert;
    j.from_stride[OUT] = out_is_row ? m->stride_row : m->stride_col;
    j.from_stride[RANK] = out_is_row ? m->stride_col : m->stride_row;
    choose_tile(&j);
    int rest = EXPERT + OUT + RANK - j.lane - j.row;
    j.first_block = a->n_block;
    a->n_block += (j.n[j.row] + 31) / 32 * ((j.n[j.lane] + 31) / 32) * j.n[rest];
    a->job[a->n_job++] = j;
}

/* Rows [first, first + rank) of an A to packed rows [first, last) of (E, low, in). */
static void add_a(pack_args *a, const mk_matrix *m, int n_expert, int in, int low, int first, int last, int rank, void *to)
{
    pack_job j = {};

    j.to = to;
    j.to_stride[EXPERT] = (int64_t)low * in;
    j.to_stride[OUT] = 1;
    j.to_stride[RANK] = in;
    j.n[EXPERT] = n_expert;
    j.n[OUT] = in;
    j.n[RANK] = last - first;
    j.to_first = j.first = first;
    j.rank = rank;
    j.scale = 1.f;
    add(a, j, m, false);
}

/* A B to (E, n_half, out, low), or turned to (E, low, n_half, out), at one half; columns [first, first + rank) hold it. */
struct packed_b {
    int n_expert, n_half, half, out, low, first, rank;
    float scale;
    bool turned;
};

static void add_b(pack_args *a, const mk_matrix *m, const packed_b &b, char *to, size_t elt)
{
    pack_job j = {};
    int64_t whole = (int64_t)b.n_half * b.out;

    j.to = to + (size_t)b.half * b.out * (b.turned ? 1 : b.low) * elt;
    j.to_stride[EXPERT] = whole * b.low;
    j.to_stride[OUT] = b.turned ? 1 : b.low;
    j.to_stride[RANK] = b.turned ? whole : 1;
    j.n[EXPERT] = b.n_expert;
    j.n[OUT] = b.out;
    j.n[RANK] = b.low;
    j.first = b.first;
    j.rank = b.rank;
    j.scale = b.scale;
    add(a, j, m, true);
}

static void add_up(pack_args *a, const mk_problem *p, const struct mk_plan *plan, const mk_lora_layout *at, char *work, bool turned)
{
    const mk_lora *l = p->lora;
    int rank = l->up_rank, low = plan->low_up;
    size_t elt = mk_dtype_bytes(p->dtype);
    packed_b b = { p->n_expert, plan->n_half, 0, p->inter, low, 0, rank, l->up_scale, turned };

    if (l->apart)
        add_a(a, &l->gate_a, p->n_expert, p->hidden, low, 0, rank, rank, work + at->up_a);
    add_a(a, &l->up_a, p->n_expert, p->hidden, low, l->apart ? rank : 0, low, rank, work + at->up_a);
    if (plan->has_gate)
        add_b(a, &l->gate_b, b, work + at->up_b, elt);
    b.half = plan->n_half - 1;
    b.first = l->apart ? rank : 0;
    add_b(a, &l->up_b, b, work + at->up_b, elt);
}

int mk_lora_pack_v1(const mk_problem *p, const struct mk_plan *plan, const mk_lora_layout *at, void *work, bool turned, mk_stream stream)
{
    const mk_lora *l = p->lora;
    char *to = (char *)work;
    pack_args a = {};

    a.from_dtype = l->dtype;
    if (plan->low_up)
        add_up(&a, p, plan, at, to, turned);
    if (plan->low_down) {
        packed_b b = { p->n_expert, 1, 0, p->hidden, plan->low_down, 0, l->down_rank, l->down_scale, turned };
        add_a(&a, &l->down_a, p->n_expert, p->inter, plan->low_down, 0, plan->low_down, l->down_rank, to + at->down_a);
        add_b(&a, &l->down_b, b, to + at->down_b, mk_dtype_bytes(p->dtype));
    }
    if (!a.n_block)
        return MK_OK;
    return mk_launch(p->dtype == MK_BF16 ? lora_pack_v1<bf16> : lora_pack_v1<half>, a.n_block, 256, 0, a, stream);
}
