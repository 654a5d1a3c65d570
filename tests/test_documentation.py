"""What the README and the docstrings show runs, and their numbers are the measured ones."""

import ast
import importlib
import pathlib
import pkgutil
import re

import pytest

import keras_ktan

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def documented_objects():
    """Every public class, method and function of the package with an example."""
    found = {}
    for module_info in pkgutil.walk_packages(keras_ktan.__path__, "keras_ktan."):
        if module_info.name.startswith("keras_ktan.training.steps."):
            continue
        module = importlib.import_module(module_info.name)
        tree = ast.parse(pathlib.Path(module.__file__).read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                for number, code in enumerate(BLOCK.findall(ast.get_docstring(node) or "")):
                    found[f"{module_info.name}.{node.name}[{number}]"] = code
    return found


EXAMPLES = documented_objects()


def test_the_public_names_have_examples():
    for name in keras_ktan.__all__:
        assert any(f".{name}[" in example for example in EXAMPLES), name


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[name].replace("/tmp/", f"{tmp_path}/")
    exec(compile(code, name, "exec"), {"__name__": "example"})


def test_the_readme_code_runs_as_it_stands(tmp_path, monkeypatch):
    (code,) = BLOCK.findall(README)
    assert len(code.strip().splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), namespace)
    assert (tmp_path / "student" / "saved_model.pb").exists()
    history = namespace["distiller"].history.history
    assert history["accuracy"][-1] > history["accuracy"][0]


@pytest.mark.parametrize("marker", re.findall(r"<!-- from (\S+) -->", README))
def test_the_readme_tables_are_the_measured_ones(marker):
    measured = (ROOT / marker).read_text().strip()
    after = README.split(f"<!-- from {marker} -->\n", 1)[1]
    assert after.startswith(measured)


def test_the_readme_numbers_come_from_files():
    assert re.findall(r"<!-- from (\S+) -->", README), "the README shows no measured table"
