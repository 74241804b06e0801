"""hook*.py and swap*.py are executed among the same globals: a name that two of them define is a name lost."""
import ast
import collections
import pathlib

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
