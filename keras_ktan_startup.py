"""Starts Keras without its backend's start-up lines; the command `keras-ktan` begins here.

It stands beside the package, because a module inside would import all of `keras_ktan`, and with it
Keras, before its own first line.

TensorFlow writes where it finds no GPU before its own log settings hold, straight to the file
descriptor, so that neither `TF_CPP_MIN_LOG_LEVEL` nor `sys.stderr` stops those lines. So what is
written meanwhile goes through a small process of its own, which leaves out TensorFlow's log lines
and hands on everything else. Where the import fails or the process dies, it hands on every line.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys

_WELL, _BADLY = b"\0keras_ktan: well\0", b"\0keras_ktan: badly\0"
_LOG_LINE = re.compile(
    rb"[IWE]\d{4} \d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    rb"|WARNING: All log messages before absl::|To enable the following instructions"
)


def import_keras():
    """Import Keras and its backend without the lines that TensorFlow writes at its start.

    `TF_CPP_MIN_LOG_LEVEL=0` in the environment shows them.
    """
    wanted = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0"
    is_late = "keras" in sys.modules
    with contextlib.nullcontext() if wanted or is_late else _without_log_lines():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # The first look at the devices writes the same again.
            tf.config.list_physical_devices("GPU")


def main():
    """Run the command `keras-ktan`.

    Returns:
        The exit code.
    """
    try:
        import_keras()
    except ImportError as error:
        text = " ".join(str(error).split())
        print(
            f"keras-ktan: error: Keras cannot be imported ({text}). It needs TensorFlow, JAX or "
            'PyTorch. Run `pip install "keras-ktan[tensorflow]"`, for example.',
            file=sys.stderr,
        )
        return 1
    from keras_ktan import cli

    return cli.main()


@contextlib.contextmanager
def _without_log_lines():
    # A process and not a thread: it must have the last words of one that is aborted.
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE)
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(reader.stdin.fileno(), 2)
    end = _BADLY
    try:
        yield
        end = _WELL
    finally:
        sys.stderr.flush()
        os.write(2, end)
        os.dup2(kept, 2)
        os.close(kept)
        reader.stdin.close()
        reader.wait()


def _hand_on():
    """Read to the end mark, or to the end of the process that writes; show what is no log line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    text = b""
    while not text.endswith((_WELL, _BADLY)) and (part := os.read(0, 65536)):
        text += part
    lines = text.removesuffix(_WELL).removesuffix(_BADLY).splitlines(keepends=True)
    is_well = text.endswith(_WELL)
    os.write(2, b"".join(line for line in lines if not (is_well and _LOG_LINE.match(line))))


if __name__ == "__main__":
    _hand_on()
