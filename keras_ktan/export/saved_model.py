"""Writes a SavedModel whose inputs and outputs have names."""

import keras


def write_saved_model(model, path, batch_size=None):
    """Write a model as a SavedModel.

    `student.export` names what it cannot know `keras_tensor_25` and `output_0`. Here the inputs
    have the names of the `Input` layers, and the outputs those of the layers (or the keys of the
    dict) that make them.

    Args:
        model: A `ServingModel`.
        path: Folder to write to, a `pathlib.Path`.
        batch_size: The size of the batch axis; open when it is `None`.
    """

    # One positional argument for each input, so that `TFSMLayer` feeds a single one directly.
    def serve(*inputs):
        return model(dict(zip(model.input_names, inputs, strict=True)), training=False)

    specs = model.signature(batch_size)[0]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve", serve, input_signature=[specs[name] for name in model.input_names]
    )
    archive.write_out(str(path), verbose=False)
