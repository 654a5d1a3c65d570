"""The commands that the README and the documentation print, and what they import.

Nothing is run: the scripts are read, and the modules of this repository that they import.
"""

import ast
import configparser
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
_COMMAND = re.compile(r"python ((?:examples|benchmarks)/\S+?\.py)")
_INSTALL = re.compile(r'pip install -e "\.\[([\w,]+)\]"')
_REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[([\w,]+)\])?")
# Distributions whose modules have another name, or that come with another one.
_DISTRIBUTIONS = {
    "PIL": "matplotlib",
    "keras_hub": "keras-hub",
    "keras_tuner": "keras-tuner",
    "scipy": "scikit-learn",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def printed_commands(pages):
    """Dict from `(script, extras)` to the page that prints the command.

    Args:
        pages: Paths of Markdown files, the README first: its first line with `pip install`
            counts for every command whose own line installs nothing.
    """
    found, default = {}, None
    for page in pages:
        for line in page.read_text().splitlines():
            install = _INSTALL.search(line)
            default = default or (install and install[1])
            for script in _COMMAND.findall(line):
                found.setdefault((script, install[1] if install else default), page.name)
    return found


def distributions_of(extras):
    """Names of the distributions that `pip install -e ".[extras]"` asks for."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    for extra in extras.split(","):
        lines += config["options.extras_require"][extra].splitlines()
    found = set()
    for name, inner in (_REQUIREMENT.match(line).groups() for line in lines if line.strip()):
        found |= distributions_of(inner) if name == "keras-ktan" else {name}
    return found


def needed_distributions(script):
    """Names of the distributions that a script imports, itself or through this repository."""
    files, needed = [ROOT / script], set()
    for file in files:  # it grows
        tree = ast.parse(file.read_text())
        for name, is_lazy in _imports(tree, file):
            inside = _files_of(name, (ROOT / script).parent)
            files += [path for path in inside if path not in files and not _is_a_step(path)]
            top = name.partition(".")[0]
            if inside or top in sys.stdlib_module_names:
                continue
            # Which backend is imported inside a function, Keras's backend has decided.
            if not (is_lazy and top in BACKENDS):
                needed.add(_DISTRIBUTIONS.get(top, top))
    chosen = re.search(r'setdefault\("KERAS_BACKEND", "(\w+)"\)', (ROOT / script).read_text())
    return needed | ({chosen[1]} if chosen else set())


def _imports(tree, file):
    """Dotted names that a module imports, and whether it does so inside a function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, functions)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = file.parents[node.level - 1].relative_to(ROOT).parts if node.level else ()
            base = ".".join(filter(None, (*package, node.module)))
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((name, id(node) in lazy) for name in names)


def _files_of(name, folder):
    """This repository's files that an import of a dotted name runs; none for other modules."""
    parts = name.split(".")
    for place in (folder, ROOT, *(ROOT / other for other in ("examples", "benchmarks", "tests"))):
        found = []
        for end in range(1, len(parts) + 1):
            path = place.joinpath(*parts[:end])
            found += [
                file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()
            ]
        if found:
            return found
    return []


def _is_a_step(path):
    """Each backend's step imports its backend; `steps/__init__.py` takes one of them."""
    return path.parent.name == "steps" and path.name != "__init__.py"
