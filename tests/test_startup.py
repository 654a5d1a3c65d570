"""What Keras's backend writes when it is imported: its log lines are left out, nothing else is."""

import os
import subprocess
import sys

import keras
import pytest
from printed_commands import ROOT

# As TensorFlow 2.21 and older ones write them.
LOG_LINES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1796043654.906380    6282 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1796043675.906750    6282 cuda_platform.cc:52] failed call to cuInit: 303
2026-11-30 12:54:41.906380: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""


def run(lines, folder, **environment):
    """A process that imports a stand-in for Keras, which runs these lines."""
    (folder / "keras.py").write_text(
        f"import os\nos.write(2, {LOG_LINES.encode()!r})\n{lines}\n"
        "class backend:\n    backend = staticmethod(lambda: 'none')\n"
    )
    script = "import os, keras_ktan_startup as s; s.import_keras(); os.write(2, b'our first line')"
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_log_lines_are_left_out_and_nothing_else(tmp_path):
    ended = run("import warnings; warnings.warn('a driver is too old')", tmp_path)
    assert ended.returncode == 0
    warning, source, first = ended.stderr.splitlines()
    assert warning.endswith("UserWarning: a driver is too old") and "warnings.warn" in source
    assert first == "our first line"


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ("raise ImportError('no such library')", "ImportError: no such library\n"),
        ("os.write(2, b'F0000 no AVX2 here'); os.abort()", "F0000 no AVX2 here"),
    ],
)
def test_an_import_that_fails_shows_every_line(lines, last, tmp_path):
    ended = run(lines, tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.startswith(LOG_LINES) and ended.stderr.endswith(last)


def test_who_asks_for_the_lines_sees_them(tmp_path):
    ended = run("", tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert ended.stderr == f"{LOG_LINES}our first line"


def test_a_missing_backend_is_one_line(tmp_path):
    (tmp_path / "keras.py").write_text("import no_such_backend")
    command = "import sys, keras_ktan_startup as s; sys.exit(s.main())"
    ended = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "No module named 'no_such_backend'" in line
    assert 'Run `pip install "keras-ktan[tensorflow]"`' in line


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the lines are TensorFlow's")
def test_the_command_begins_with_its_own_line(tmp_path):
    command = "import sys, keras_ktan_startup as s; sys.exit(s.main())"
    environment = {name: value for name, value in os.environ.items() if name[:3] != "TF_"}
    ended = subprocess.run(
        [sys.executable, "-c", command, "report", "nowhere.keras", "nowhere.keras"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("keras-ktan: error: ") and ended.stderr.count("\n") == 1
