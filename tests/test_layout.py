"""The layout that the contributing page describes: imports point downwards, modules stay small."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "keras_ktan"
# From top to bottom: a module imports from its own level and from those below it.
LEVELS = (
    ("tuner",),
    ("compress", "cli"),
    ("distiller",),
    ("feature_pair", "output_pair"),
    ("students",),
    ("callbacks",),
    ("cache",),
    ("report",),
    ("plots",),
    ("export",),
    ("training",),
    ("layers",),
    ("losses",),
    ("introspection",),
    ("utils",),
)
DEPTH = {name: depth for depth, names in enumerate(LEVELS) for name in names}
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


def level(parts):
    return DEPTH[parts[0].removesuffix(".py")]


def imports(path):
    """Modules of the package that a module imports, also inside its functions."""
    tree = ast.parse(path.read_text())
    # What only annotations name is not imported when the package runs.
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_ktan"):
            yield node.module.split(".")[1:]
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("keras_ktan"):
                    yield name.name.split(".")[1:]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__.py"])
def test_imports_point_downwards(module):
    own = level(module.split("/"))
    upwards = [
        ".".join(parts) for parts in imports(MODULES[module]) if parts and level(parts) < own
    ]
    assert upwards == []


def definitions(path):
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_small(module):
    limit = 700 if module == "distiller.py" else 300
    assert len(MODULES[module].read_text().splitlines()) <= limit


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("training/steps/")])
def test_functions_of_a_step_are_short(module):
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in definitions(MODULES[module])
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > 50} == {}
