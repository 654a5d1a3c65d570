"""Writes ONNX by Keras's own export."""

import warnings


def write_onnx(model, path, batch_size=None):
    """Write a model as ONNX.

    Args:
        model: A `ServingModel`.
        path: File to write to, a `pathlib.Path`.
        batch_size: The size of the batch axis; open when it is `None`.

    Raises:
        ValueError: If the model cannot be converted.
    """
    try:
        with warnings.catch_warnings():
            # Keras's patch of tf2onnx asks NumPy for `np.object`.
            warnings.filterwarnings("ignore", message=".*np.object", category=FutureWarning)
            model.export(
                str(path), format="onnx", verbose=False, input_signature=model.signature(batch_size)
            )
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"The model '{model.student.name}' cannot be converted to ONNX: {error}. "
            "Expected layers that the converter knows, computing in float32. Replace those that it "
            "names, or choose another format."
        ) from error
