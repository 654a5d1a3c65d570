"""The packages that each format needs, looked for before any work begins."""

import importlib

# tf2onnx imports TensorFlow but does not ask for it. On JAX, Keras goes through jax2tf.
_PACKAGES = {
    "tf_saved_model": ["tensorflow"],
    "litert": ["tensorflow", "ai_edge_litert"],
    "onnx": ["tensorflow", "tf2onnx", "onnx", "onnxruntime"],
}


def require_packages(format):
    """Import what a format needs, so that a missing package costs no conversion.

    Args:
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.

    Raises:
        ImportError: If a package is missing.
    """
    missing = []
    for package in _PACKAGES[format]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            missing.append((package, error))
    if missing:
        names = ", ".join(f"`{package}`" for package, _ in missing)
        raise ImportError(
            f"The format '{format}' needs {names}, which cannot be imported here. Run "
            '`pip install "keras-ktan[export]"`.'
        ) from missing[0][1]
