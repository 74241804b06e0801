"""hook*.py and swap*.py are executed among the same globals: a name that two of them define is a name lost."""
import ast
import collections
import pathlib

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


def test_cosine_from_sums_of_squares():
    tree = ast.parse((INJECTOR / "swap_parity.py").read_text())
    alone, scope = next(node for node in tree.body if getattr(node, "name", "") == "cosine"), {}
    exec(compile(ast.Module([alone], []), "cosine", "exec"), scope)
    a, b = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def of(a, b):
        return scope["cosine"](*(float(v.square().sum()) for v in (a, b, b - a)))
    assert abs(of(a, b) - float(torch.cosine_similarity(a, b, dim=0))) < 1e-12
    assert abs(of(a, a * 1.01) - 1) < 1e-12 and abs(of(a, -a) + 1) < 1e-12
    assert of(a, torch.zeros_like(a)) is None and of(torch.zeros_like(a), a) is None
    assert of(a, a * float("inf")) is None and of(a, a * float("nan")) is None
