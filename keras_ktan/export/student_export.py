"""Export the student with names on its inputs and outputs."""

import keras

from keras_ktan.introspection.model_trace import ModelTrace


def export_student(student, filepath, output_names=None, format="tf_saved_model", **kwargs):
    """Write a student as a SavedModel whose inputs and outputs have names.

    `student.export` names what it cannot know `keras_tensor_25` and `output_0`. Here the inputs
    have the names of the `Input` layers, and the outputs those of the layers (or the keys of
    the dict) that make them. The batch axis stays open. Backends other than TensorFlow and
    formats other than `tf_saved_model` go through `student.export` unchanged.

    Args:
        student: A built `keras.Model`.
        filepath: Directory to write to.
        output_names: Optional list of names for the outputs, in order.
        format: As in `keras.Model.export`.
        **kwargs: `verbose`, and for other formats or backends whatever `student.export` takes.

    Raises:
        ValueError: If `output_names` has not one name for each output, or if an argument is
            given that this format does not take.

    Example:

    ```python
    import keras
    from keras_ktan import export_student

    student = keras.Sequential([keras.Input((4,), name="measurements"), keras.layers.Dense(3)])
    export_student(student, "/tmp/student", output_names=["logits"], verbose=False)
    ```
    """
    trace = ModelTrace(student)
    names = output_names or _names(trace)
    if len(set(names)) != len(trace.output_ids) or len(set(names)) != len(names):
        raise ValueError(
            f"Received output_names={names} for a student with {len(trace.output_ids)} outputs. "
            "Expected one name for each. Correct `output_names`."
        )

    if keras.backend.backend() != "tensorflow" or format != "tf_saved_model":
        if output_names is not None:
            raise ValueError(
                f"Received output_names={output_names} for the format '{format}' on the backend "
                f"'{keras.backend.backend()}'. Expected none: only a SavedModel on TensorFlow gets "
                "names. Leave `output_names` out."
            )
        student.export(filepath, format=format, **kwargs)
        return
    verbose = kwargs.pop("verbose", True)
    if kwargs:
        raise ValueError(
            f"Received {sorted(kwargs)} for a SavedModel. Expected `output_names` and `verbose` "
            "only. Leave the rest out, or use `student.export`."
        )

    def serve(*inputs):
        structured = keras.tree.pack_sequence_as(trace.inputs, list(inputs))
        return dict(
            zip(names, keras.tree.flatten(student(structured, training=False)), strict=True)
        )

    archive = keras.export.ExportArchive()
    archive.track(student)
    specs = [
        keras.InputSpec(shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(
            keras.tree.flatten(trace.inputs), _input_names(student, trace), strict=True
        )
    ]
    archive.add_endpoint("serve", serve, input_signature=specs)
    archive.write_out(filepath, verbose=verbose)


def _input_names(student, trace):
    if isinstance(trace.inputs, dict):
        return _keys(trace.inputs)
    if getattr(student, "inputs", None):
        return [tensor.name for tensor in student.inputs]
    return [f"input_{index}" for index in range(len(keras.tree.flatten(trace.inputs)))]


def _names(trace):
    if isinstance(trace.outputs, dict):
        return _keys(trace.outputs)
    makers = [trace.producer(tensor_id) for tensor_id in trace.output_ids]
    names = [
        maker.layer.name if maker is not None else f"output_{index}"
        for index, maker in enumerate(makers)
    ]
    return names if len(set(names)) == len(names) else [f"output_{i}" for i in range(len(names))]


def _keys(structure):
    # In the order in which `keras.tree` flattens, which is not that of the dict.
    return [str(path[-1]) for path, _ in keras.tree.flatten_with_path(structure)]
