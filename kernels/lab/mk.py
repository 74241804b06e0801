"""The kernels' C ABI from Python, by ctypes: for checks and benchmarks, not for training.

Problem(...) keeps the struct and the tensors it points to; forward() and backward() launch on torch's current stream.
Tensors on the CPU are served by the reference.
"""
import ctypes as C
import os
import torch

BF16, FP16, FP32, FP64, INT32, INT64 = range(6)
SWIGLU, GEGLU_TANH, GEGLU_ERF, CLAMPED_GLU, RELU2 = range(5)
INFERENCE, PORTABLE = 1, 2
ROUTE, UP, DOWN, COMBINE, DACT, DX, DW_DOWN, DW_UP, DBIAS, DSCORE, LORA = (1 << i for i in range(11))
TYPE = {torch.bfloat16: BF16, torch.float16: FP16, torch.float32: FP32, torch.float64: FP64, torch.int32: INT32, torch.int64: INT64}
i32, u32, i64, ptr = C.c_int32, C.c_uint32, C.c_int64, C.c_void_p


def struct(name, fields):
    return type(name, (C.Structure,), {'_fields_': fields})


Matrix = struct('Matrix', [('base', ptr), ('expert_offset', ptr), ('span', i64), ('stride_expert', i64), ('stride_row', i64), ('stride_col', i64)])
Vector = struct('Vector', [('base', ptr), ('stride_expert', i64), ('stride', i64)])
ProblemStruct = struct('ProblemStruct', [(n, u32) for n in ('size', 'target')] + [(n, i32) for n in ('n_token', 'hidden', 'inter', 'n_expert', 'top_k')]
    + [(n, u32) for n in ('dtype', 'index_dtype', 'score_dtype', 'act')] + [('act_alpha', C.c_float), ('act_limit', C.c_float)]
    + [(n, ptr) for n in ('x', 'index', 'score')] + [(n, i64) for n in ('x_stride', 'index_stride', 'score_stride')]
    + [(n, Matrix) for n in ('gate', 'up', 'down')] + [(n, Vector) for n in ('gate_bias', 'up_bias', 'down_bias')] + [('lora', ptr)])
ADAPTERS = ('gate_a', 'up_a', 'gate_b', 'up_b', 'down_a', 'down_b')
Lora = struct('Lora', [('size', u32), ('dtype', u32), ('up_rank', i32), ('down_rank', i32), ('apart', u32), ('up_scale', C.c_float), ('down_scale', C.c_float)]
    + [(n, Matrix) for n in ADAPTERS])
LoraGrad = struct('LoraGrad', [('size', u32), ('dtype', u32)] + [(n, Matrix) for n in ADAPTERS])
Sizes = struct('Sizes', [(n, C.c_size_t) for n in ('saved', 'saved_inference', 'forward_workspace', 'backward_workspace')])
Forward = struct('Forward', [('size', u32), ('flags', u32), ('steps', u32), ('out', ptr), ('out_stride', i64), ('saved', ptr), ('saved_bytes', C.c_size_t),
    ('workspace', ptr), ('workspace_bytes', C.c_size_t), ('problem', C.POINTER(ProblemStruct))])
Backward = struct('Backward', [('size', u32), ('flags', u32), ('steps', u32), ('dx', ptr), ('dx_stride', i64), ('dscore', ptr), ('dscore_stride', i64)]
    + [(n, Matrix) for n in ('dgate', 'dup', 'ddown')] + [(n, Vector) for n in ('dgate_bias', 'dup_bias', 'ddown_bias')]
    + [('dweight_dtype', u32), ('accumulate', u32), ('workspace', ptr), ('workspace_bytes', C.c_size_t), ('dout', ptr), ('dout_stride', i64),
       ('saved', ptr), ('problem', C.POINTER(ProblemStruct)), ('dlora', C.POINTER(LoraGrad))])
Row = struct('Row', [('op', C.c_char_p), ('name', C.c_char_p), ('version', i32), ('sm_min', i32), ('sm_max', i32)])
Api = struct('Api', [('size', u32), ('version', u32), ('strerror', C.CFUNCTYPE(C.c_char_p, C.c_int)),
    ('sizes', C.CFUNCTYPE(C.c_int, C.POINTER(Sizes), C.POINTER(ProblemStruct))), ('forward', C.CFUNCTYPE(C.c_int, C.POINTER(Forward), ptr)),
    ('backward', C.CFUNCTYPE(C.c_int, C.POINTER(Backward), ptr)),
    ('choose', C.CFUNCTYPE(C.POINTER(Row), C.c_char_p, u32, C.POINTER(ProblemStruct))), ('row', C.CFUNCTYPE(C.POINTER(Row), C.c_size_t))])


def load():
    here = os.path.dirname(os.path.abspath(__file__))
    lib = C.CDLL(os.environ.get('MOEPROF_KERNELS', os.path.join(here, '../../build/libmoeprof_kernels.so')))
    lib.mk_get_api.restype = C.POINTER(Api)
    return lib.mk_get_api(1).contents


api = load()


class Refused(RuntimeError):
    def __init__(self, code):
        super().__init__(api.strerror(code).decode())
        self.code = code


def ok(code):
    if code:
        raise Refused(code)


def concat(t):
    """gate and up of one (E, 2I, H) tensor, gate rows first."""
    e, i2, h = t.shape
    n = i2 // 2 * t.stride(1) * t.element_size()
    return [Matrix(t.data_ptr() + k * n, None, 0, t.stride(0), t.stride(1), t.stride(2)) for k in (0, 1)]


def interleaved(t):
    n = t.stride(1) * t.element_size()
    return [Matrix(t.data_ptr() + k * n, None, 0, t.stride(0), 2 * t.stride(1), t.stride(2)) for k in (0, 1)]


def matrix(t):
    return Matrix(t.data_ptr(), None, 0, *t.stride())


def vector(t):
    return Vector(t.data_ptr(), t.stride(0), t.stride(1)) if t is not None else Vector()


def stream():
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else None


def nbytes(n, device='cuda'):
    return torch.empty(max(n, 256), dtype=torch.uint8, device=device)


def lora(cls, dtype, **fields):
    """A Lora or a LoraGrad."""
    return cls(size=C.sizeof(cls), dtype=TYPE[dtype], **fields)


class Problem:
    def __init__(self, x, index, score, gate, up, down, inter, n_expert, act=SWIGLU, bias=(None, None, None), alpha=1.702, limit=7., lora=None):
        self.keep = (x, index, score, bias, lora)
        self.x, self.score = x, score
        self.s = ProblemStruct(size=C.sizeof(ProblemStruct), target=0 if x.is_cuda else 1, n_token=x.shape[0], hidden=x.shape[1], inter=inter, n_expert=n_expert,
            top_k=index.shape[1], dtype=TYPE[x.dtype], index_dtype=TYPE[index.dtype], score_dtype=TYPE[score.dtype], act=act, act_alpha=alpha,
            act_limit=limit, x=x.data_ptr(), index=index.data_ptr(), score=score.data_ptr(), x_stride=x.stride(0), index_stride=index.stride(0),
            score_stride=score.stride(0), gate=gate, up=up, down=down, gate_bias=vector(bias[0]), up_bias=vector(bias[1]), down_bias=vector(bias[2]),
            lora=C.cast(C.pointer(lora), ptr) if lora else None)
        self.sizes = Sizes()
        ok(api.sizes(C.byref(self.sizes), C.byref(self.s)))

    def path(self, flags=0):
        row = api.choose(b'forward', flags, C.byref(self.s))
        return row.contents.name.decode() if row else None

    def forward(self, out=None, saved=None, work=None, flags=0, steps=0):
        n_saved = self.sizes.saved_inference if flags & INFERENCE else self.sizes.saved
        saved = nbytes(n_saved, self.x.device) if saved is None else saved
        work = nbytes(self.sizes.forward_workspace, self.x.device) if work is None else work
        out = torch.empty_like(self.x) if out is None else out
        a = Forward(C.sizeof(Forward), flags, steps, out.data_ptr(), out.stride(0), saved.data_ptr(), saved.numel(), work.data_ptr(), work.numel(), C.pointer(self.s))
        ok(api.forward(C.byref(a), stream()))
        return out, saved

    def backward(self, saved, dout, dx, dscore, dgate, dup, ddown, dtype, dbias=(None, None, None), accumulate=0, work=None, flags=0, steps=0,
                 dlora=None):
        work = nbytes(self.sizes.backward_workspace, self.x.device) if work is None else work
        a = Backward(C.sizeof(Backward), flags, steps, dx.data_ptr() if dx is not None else None, dx.stride(0) if dx is not None else 0,
            dscore.data_ptr() if dscore is not None else None, dscore.stride(0) if dscore is not None else 0, dgate, dup, ddown,
            vector(dbias[0]), vector(dbias[1]), vector(dbias[2]), TYPE[dtype], accumulate, work.data_ptr(), work.numel(), dout.data_ptr(), dout.stride(0),
            saved.data_ptr(), C.pointer(self.s), C.pointer(dlora) if dlora else None)
        ok(api.backward(C.byref(a), stream()))
