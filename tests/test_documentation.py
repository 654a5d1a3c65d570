"""What README, documentation and docstrings show runs, and their numbers are the measured ones."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re

import keras
import pytest
from printed_commands import (
    ROOT,
    distributions_of,
    needed_distributions,
    printed_commands,
)

import keras_ktan

pytestmark = pytest.mark.graph

README = ROOT / "README.md"
DOCS = ROOT / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EQUAL_TABLE = re.compile(r"<!-- from (\S+) -->\n")
NUMBERS_TABLE = re.compile(r"<!-- numbers from (.+?) -->\n((?:\|.*\n)+)")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TENSORFLOW_PAGES = ("several_devices.md", "export.md", "report.md")
# The one that a newcomer copies from first is always run.
FAST_PAGES = ("getting_started.md", "outputs.md", "losses_and_weights.md")
# These write files for every runtime and start a process for each; other tests do, too.
LONG_PAGES = ("export.md", "report.md")
# What only one extra brings, and no test needs but that of a page which shows it.
EXTRA_MODULES = ("ai_edge_litert", "onnxruntime", "tensorflow")


def _marks(page):
    if page.parent.name == "guides" and page.name in LONG_PAGES:
        return [pytest.mark.long]
    return [] if page.name in FAST_PAGES else [pytest.mark.slow]


def page_id(page):
    return str(page.relative_to(ROOT))


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


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = EXAMPLES[name].replace("/tmp/", f"{tmp_path}/")
    exec(compile(code, name, "exec"), {"__name__": "example"})


def test_the_readme_code_runs_as_it_stands(tmp_path, monkeypatch):
    (code,) = BLOCK.findall(README.read_text())
    assert len(code.strip().splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), namespace)
    assert (tmp_path / "student" / "saved_model.pb").exists()
    history = namespace["distiller"].history.history
    assert history["accuracy"][-1] > history["accuracy"][0]


def few_digits(monkeypatch):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    digits.images, digits.target = digits.images[:64], digits.target[:64]
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)


@pytest.fixture
def eager(request):
    """TensorFlow takes seconds to trace a step; a graph is the subject of exports alone."""
    parameters = request.node.callspec.params
    of_export = "export" in (
        parameters["name"] if "name" in parameters else parameters["page"].name
    )
    if keras.backend.backend() != "tensorflow" or of_export:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def few_epochs(monkeypatch):
    fit = keras.Model.fit

    def short_fit(self, x=None, y=None, batch_size=None, epochs=1, *arguments, **named):
        return fit(self, x, y, batch_size, min(epochs, 2), *arguments, **named)

    monkeypatch.setattr(keras.Model, "fit", short_fit)


def getting_started():
    """The names that the guides go on with, from the page that they name."""
    namespace = {"__name__": "example"}
    first_block = BLOCK.findall((DOCS / "getting_started.md").read_text())[0]
    exec(compile(first_block, "getting_started.md", "exec"), namespace)
    for name, filters in {"teacher": 8, "student": 4}.items():
        namespace[name] = namespace["classifier"](filters, name)
    return namespace


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=page_id(page),
            marks=_marks(page),
        )
        for page in PAGES[1:]
        if BLOCK.search(page.read_text())
    ],
)
@pytest.mark.usefixtures("eager")
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    if page.name in TENSORFLOW_PAGES and keras.backend.backend() != "tensorflow":
        pytest.skip("the page shows what TensorFlow alone has")
    monkeypatch.chdir(tmp_path)
    few_digits(monkeypatch)
    few_epochs(monkeypatch)
    text = page.read_text()
    for module in EXTRA_MODULES:
        if f"import {module}" in text or f"from {module}" in text:
            pytest.importorskip(module)
    namespace = {"__name__": "example"}
    if "goes on from\n[Getting started]" in text or "goes on from [Getting started]" in text:
        namespace = getting_started()
    for number, code in enumerate(BLOCK.findall(text)):
        exec(compile(code, f"{page.name}[{number}]", "exec"), namespace)


@pytest.mark.parametrize(
    ("page", "file"),
    [
        pytest.param(page, file, id=f"{page_id(page)}-{file}")
        for page in PAGES
        for file in EQUAL_TABLE.findall(page.read_text())
    ],
)
def test_a_table_is_the_measured_one(page, file):
    after = page.read_text().split(f"<!-- from {file} -->\n", 1)[1]
    assert after.startswith((ROOT / file).read_text().strip())


def test_the_readme_shows_a_measured_table():
    assert NUMBERS_TABLE.search(README.read_text())


def numbers_of_cells(table):
    """The numbers of a table's body without its first column."""
    rows = table.strip().splitlines()[2:]
    return {
        number for row in rows for cell in row.split("|")[2:] for number in NUMBER.findall(cell)
    }


def measured_numbers(patterns):
    files = [file for pattern in patterns.split() for file in ROOT.glob(pattern)]
    assert files, f"no file {patterns}"
    return {number for file in files for number in NUMBER.findall(file.read_text())}


@pytest.mark.parametrize(
    ("patterns", "table"),
    [found for page in PAGES for found in NUMBERS_TABLE.findall(page.read_text())],
)
def test_the_numbers_of_a_table_are_measured_ones(patterns, table):
    assert numbers_of_cells(table) - measured_numbers(patterns) == set()


def test_the_tests_that_a_page_names_exist():
    text = (DOCS / "concepts" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    files = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = {
        name for file in files for name in re.findall(r"^def (test_\w+)\(", file, re.MULTILINE)
    }
    assert len(named) > 15 and named - known == set()


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1000


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)", README.read_text())
    missing = [
        link for link in links if not link.startswith("https:") and not (ROOT / link).exists()
    ]
    assert links and not missing


COMMANDS = printed_commands(PAGES)


@pytest.mark.parametrize(("script", "extras"), COMMANDS)
def test_a_printed_command_finds_its_imports_after_the_install_line(script, extras):
    assert (ROOT / script).exists(), f"{COMMANDS[script, extras]} prints it"
    assert needed_distributions(script) - distributions_of(extras) - {"keras-ktan"} == set()


def test_imports_are_followed_through_the_repository():
    needed = needed_distributions("examples/distill_detector.py")
    assert {"keras", "tensorflow", "pycocotools", "matplotlib"} <= needed
    assert "jax" in needed_distributions("examples/distill_multi_host.py")
    assert "keras-tuner" in needed_distributions("examples/tune_loss_weights.py")
    assert ("examples/distill_digits.py", "all") in COMMANDS


def public_callables():
    """Everything that the API reference lists, with the methods it shows."""
    for page in sorted((DOCS / "api").glob("*.md")):
        for path in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            module, _, name = path.rpartition(".")
            found = getattr(importlib.import_module(module), name)
            yield path, found
            if inspect.isclass(found):
                for method, function in vars(found).items():
                    if not method.startswith("_") and inspect.isfunction(function):
                        yield f"{path}.{method}", function


def test_the_api_reference_lists_every_public_name():
    listed = {path for path, _ in public_callables()}
    for name in keras_ktan.__all__:
        assert f"keras_ktan.{name}" in listed


def unannotated(function):
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
        and parameter.kind not in kinds
        and parameter.annotation is inspect.Parameter.empty
    ]


def test_public_constructors_are_annotated():
    missing = {
        path: unannotated(found.__init__)
        for path, found in public_callables()
        if inspect.isclass(found)
    }
    assert {path: names for path, names in missing.items() if names} == {}
    assert unannotated(keras_ktan.KTANDistiller.compile) == []
    assert unannotated(keras_ktan.KTANDistiller.fit) == []
