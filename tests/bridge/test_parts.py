"""hook*.py and swap*.py are executed among the same globals: a name that two of them define is a name lost."""
import ast
import collections
import pathlib
import types

import torch

INJECTOR = pathlib.Path(__file__).resolve().parents[2] / "injector"


def names_of(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def test_each_name_has_one_home():
    homes = collections.defaultdict(set)
    for path in sorted(INJECTOR.glob("*.py")):
        for name in names_of(path):
            homes[name].add(path.name)
    assert len(homes) > 100
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def parity():
    """What swap_parity.py defines that stands on no other part."""
    nodes = [node for node in ast.parse((INJECTOR / "swap_parity.py").read_text()).body
             if not getattr(node, "bases", None) and not any(isinstance(t, ast.Attribute) for t in getattr(node, "targets", ()))]
    scope = {"torch": torch}
    exec(compile(ast.Module(nodes, []), "swap_parity", "exec"), scope)
    return scope


def judged(dtype, own_error, new_error):
    """What parity says of an output whose error over its norm is that, the own arm's and the new one's."""
    scope, one = parity(), [torch.zeros(1, 1, dtype=dtype)]
    unit = types.SimpleNamespace(layer=0, weights=types.SimpleNamespace(dtype=lambda: dtype))
    capture = types.SimpleNamespace(cast=None, x=one[0])
    row = (1.0, own_error ** 2, new_error ** 2)
    return scope["judge"](unit, capture, one, one, {"out": (1.0, own_error ** 2, new_error ** 2, 1.0, 1.0, *row)}).why


def test_an_own_arm_equal_to_the_reference_is_held_to_no_less_than_rounding():
    assert judged(torch.float64, 0.0, 3.3e-16) is None
    assert "error 1e-12" in judged(torch.float64, 0.0, 1e-12)
    assert judged(torch.float32, 1e-7, 2e-7) is None and "error 4e-07" in judged(torch.float32, 1e-7, 4e-7)


def test_cosine_from_sums_of_squares():
    scope = parity()
    a, b = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def of(a, b):
        return scope["cosine"](*(float(v.square().sum()) for v in (a, b, b - a)))
    assert abs(of(a, b) - float(torch.cosine_similarity(a, b, dim=0))) < 1e-12
    assert abs(of(a, a * 1.01) - 1) < 1e-12 and abs(of(a, -a) + 1) < 1e-12
    assert of(a, torch.zeros_like(a)) is None and of(torch.zeros_like(a), a) is None
    assert of(a, a * float("inf")) is None and of(a, a * float("nan")) is None
