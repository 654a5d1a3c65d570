"""The model that is written: the student with named inputs and outputs."""

import keras
import numpy as np

from keras_ktan.introspection.model_trace import ModelTrace


class ServingModel(keras.Model):
    """A student whose inputs and outputs have names, with what was asked for around it.

    Inputs come as a dict of tensors and outputs leave as one. Rescaling stands before the student
    and a softmax after it. The student is called as it is; none of its state changes.

    Args:
        student: A built `keras.Model`.
        output_names: Optional list of names for the outputs, in order.
        rescaling: Dict from input names to `(scale, offset)`.
        softmax: Names of the outputs that get a softmax over the last axis.

    Raises:
        ValueError: If the student is not built or a name does not fit.
    """

    def __init__(self, student, output_names=None, rescaling=None, softmax=False):
        super().__init__(name=f"{student.name}_to_serve")
        trace = ModelTrace(student)
        specs = keras.tree.flatten(trace.inputs)
        if any(spec.dtype == "string" for spec in specs):
            raise ValueError(
                f"Received the student '{student.name}' with an input of strings. Expected "
                "numbers. Export the part after the `TextVectorization` or `StringLookup`, or "
                "call `student.export`, which checks nothing."
            )
        # A tuple, because Keras tracks lists and dicts and hands back objects of its own.
        self.input_names = tuple(_input_names(student, trace))
        self.output_names = tuple(_checked_names(output_names, trace))
        # So does it with structures of tensors, but not with what a function holds.
        self.input_structure = lambda: trace.inputs
        self.output_structure = lambda: trace.outputs
        self.specs = lambda: dict(zip(self.input_names, specs, strict=True))
        self.layers_of_student = lambda: list(trace.layers.values())
        self.student = student
        self.softmax_names = tuple(_softmax_names(softmax, self.output_names))
        factors = _rescaling_of(rescaling, self.specs())
        self.rescaling_of = factors.get
        self.rescaling = lambda: _plain(factors)
        # Builds it: an archive takes only a model that is.
        self(self.specs())

    def call(self, inputs):
        """Outputs by name for inputs by name."""
        flat = [self._rescaled(name, inputs[name]) for name in self.input_names]
        structure = keras.tree.pack_sequence_as(self.input_structure(), flat)
        outputs = dict(
            zip(
                self.output_names,
                keras.tree.flatten(self.student(structure, training=False)),
                strict=True,
            )
        )
        for name in self.softmax_names:
            outputs[name] = keras.ops.softmax(outputs[name], axis=-1)
        return outputs

    def _rescaled(self, name, tensor):
        factors = self.rescaling_of(name)
        if factors is None:
            return tensor
        scale, offset = factors
        return keras.ops.add(keras.ops.multiply(tensor, scale), offset)

    def inputs_of_student(self, examples):
        """NumPy inputs of the file, in the structure and the range that the student takes."""
        flat = []
        for name in self.input_names:
            scale, offset = self.rescaling_of(name) or (None, None)
            array = examples[name]
            flat.append(array if scale is None else array * scale + offset)
        return keras.tree.pack_sequence_as(self.input_structure(), flat)

    def undo_rescaling(self, examples):
        """NumPy inputs of the student by name, in the range that the file takes."""
        undone = dict(examples)
        for name in self.input_names:
            if self.rescaling_of(name) is not None:
                scale, offset = self.rescaling_of(name)
                undone[name] = (undone[name] - offset) / scale
        return undone

    def signature(self, batch_size=None):
        """The inputs' shapes, types and names, as Keras's exporters take them.

        Args:
            batch_size: The size of the batch axis; open when it is `None`.

        Returns:
            A list of one dict of `keras.InputSpec`.
        """
        return [
            {
                name: keras.InputSpec(
                    shape=(batch_size, *spec.shape[1:]), dtype=spec.dtype, name=name
                )
                for name, spec in self.specs().items()
            }
        ]


def _plain(factors):
    """Scales and offsets as numbers and lists; `None` where there are none."""
    return {
        name: tuple(factor.tolist() for factor in pair) for name, pair in factors.items()
    } or None


def _input_names(student, trace):
    if isinstance(trace.inputs, dict):
        return _keys(trace.inputs)
    if getattr(student, "inputs", None):
        return [tensor.name for tensor in student.inputs]
    return [f"input_{index}" for index in range(len(keras.tree.flatten(trace.inputs)))]


def _checked_names(names, trace):
    names = names or _output_names(trace)
    if len(set(names)) != len(trace.output_ids) or len(set(names)) != len(names):
        raise ValueError(
            f"Received output_names={names} for a student with {len(trace.output_ids)} outputs. "
            "Expected one name for each. Correct `output_names`."
        )
    return names


def _output_names(trace):
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


def _softmax_names(softmax, output_names):
    if not softmax:
        return []
    if softmax is True:
        if len(output_names) > 1:
            raise ValueError(
                f"Received softmax=True for a student with the outputs {list(output_names)}. "
                "Expected the names of those that are logits of classes, for example "
                f"softmax=['{output_names[0]}']."
            )
        return list(output_names)
    names = [softmax] if isinstance(softmax, str) else list(softmax)
    unknown = [name for name in names if name not in output_names]
    if unknown:
        raise ValueError(
            f"Received softmax={softmax!r}. Expected some of the outputs {list(output_names)}, or "
            "True for a single one. Correct the names."
        )
    return names


def _rescaling_of(rescaling, specs):
    if rescaling is None:
        return {}
    if not isinstance(rescaling, dict):
        if len(specs) > 1:
            raise ValueError(
                f"Received rescaling={rescaling!r} for a student with the inputs {list(specs)}. "
                f"Expected a dict from input names to (scale, offset)."
            )
        rescaling = {next(iter(specs)): rescaling}
    unknown = [name for name in rescaling if name not in specs]
    if unknown:
        raise ValueError(
            f"Received rescaling for {unknown}. Expected some of the inputs {list(specs)}. Correct "
            "the names."
        )
    return {name: _factors(name, value, specs[name]) for name, value in rescaling.items()}


def _factors(name, value, spec):
    try:
        scale, offset = value if isinstance(value, (tuple, list)) else (value, 0.0)
        factors = np.asarray(scale, spec.dtype), np.asarray(offset, spec.dtype)
        fits = all(
            np.all(np.isfinite(factor))
            and factor.ndim <= 1
            and (factor.ndim == 0 or factor.shape[0] in (1, spec.shape[-1]))
            for factor in factors
        )
        fits = fits and bool(np.all(factors[0] != 0)) and "float" in spec.dtype
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"Received rescaling={value!r} for the input '{name}' of shape {tuple(spec.shape)} and "
            f"type {spec.dtype}. Expected a scale other than 0, or (scale, offset), each one "
            "number or one for each channel on the last axis, for an input of floats: the file "
            "then computes x * scale + offset. For pixels from 0 to 255, 1 / 255 gives 0 to 1."
        )
    return factors
