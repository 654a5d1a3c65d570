"""Imports Keras and its backend without their start-up lines. Import it before Keras.

TensorFlow writes where it finds no GPU before its own log settings hold, straight to the file
descriptor, so that neither `TF_CPP_MIN_LOG_LEVEL` nor `sys.stderr` stops those lines.
"""

import contextlib
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def held_back_stderr():
    """Keep what is written to the standard error stream, and show it only after an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield
            except BaseException:
                file.seek(0)
                os.write(kept, file.read())
                raise
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
    finally:
        os.close(kept)


with held_back_stderr():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The first look at the devices writes the same again.
        tf.config.list_physical_devices("GPU")
