"""The layout that the contributing page describes: imports point downwards, modules stay small."""

import ast
import importlib
import inspect
import pathlib

import pytest

import keras_ktan

PACKAGE = pathlib.Path(__file__).parent.parent / "keras_ktan"
# From top to bottom: a module imports from its own level and from those below it.
LEVELS = (
    ("tuner",),
    ("compress", "cli"),
    ("compression",),
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


def public_functions():
    """Functions, and constructors of classes, that the package and its folders export."""
    packages = [keras_ktan] + [
        importlib.import_module(f"keras_ktan.{path.parent.name}")
        for path in sorted(PACKAGE.glob("*/__init__.py"))
    ]
    exported = {
        f"{package.__name__}.{name}": getattr(package, name)
        for package in packages
        for name in getattr(package, "__all__", ())
    }
    for name, value in exported.items():
        if inspect.isclass(value) and "__init__" in vars(value):
            yield pytest.param(value.__init__, id=f"{name}.__init__")
        elif inspect.isfunction(value):
            yield pytest.param(value, id=name)


@pytest.mark.parametrize("function", public_functions())
def test_what_is_public_has_annotations(function):
    signature = inspect.signature(function)
    bare = [
        name
        for name, parameter in signature.parameters.items()
        if name != "self"
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.annotation is parameter.empty
    ]
    assert bare == []
    if function.__name__ != "__init__":
        assert signature.return_annotation is not signature.empty
