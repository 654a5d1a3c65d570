"""How layers pass channels on: one rule for each kind of layer, found by the class's name.

A rule takes a `LayerCall` and returns a `Narrowing`. It says which decisions (keep or drop) the
channels of the layer's outputs depend on, which axes of the layer's weights belong to which
decisions, and which entries of its config are numbers of channels. Layers of your own get a rule
with the argument `rules` of `slim_student`.

Example:

```python
import keras
from keras_ktan.students import slim_student
from keras_ktan.students.layer_rules import Narrowing, weight


class Projection(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def projection(call):
    units = call.new_channels(call.layer.units)
    axes = {0: call.ids(call.input), 1: units}
    return Narrowing(
        outputs=[call.output_channels(units)],
        weights=weight(call.layer.kernel, axes, measures="kernel", measured_axis=1),
        config={"units": units},
    )


inputs = keras.Input((8,))
teacher = keras.Model(inputs, keras.layers.Dense(2)(Projection(32)(inputs)))
student = slim_student(teacher, width=0.5, rules={Projection: projection})
print(student.layers[1].units)  # 16
```
"""

import keras

from keras_ktan.students.layer_rules import (
    attention,
    convolution,
    dense,
    merging,
    normalization,
    operations,
    recurrent,
    reshaping,
)
from keras_ktan.students.layer_rules.narrowing import LayerCall, NarrowedWeight, Narrowing, weight
from keras_ktan.students.layer_rules.reshaping import same_channels

# Classes of keras.applications are not public, so all rules go by the class's name.
_LAYER_RULES = {
    **convolution.RULES,
    **dense.RULES,
    **normalization.RULES,
    **merging.RULES,
    **reshaping.RULES,
    **attention.RULES,
    **recurrent.RULES,
}


def find_rule(layer, path, rules):
    """The rule for a layer or an operation.

    Args:
        layer: A layer, or an operation of a functional model.
        path: Its path, for the error.
        rules: Dict from classes to rules, which are asked first.

    Returns:
        A function of a `LayerCall` that returns a `Narrowing`.

    Raises:
        ValueError: If there is none.
    """
    for known in type(layer).__mro__:
        if known in rules:
            return rules[known]
    name = type(layer).__name__
    if type(layer).__module__.partition(".")[0] == "keras":
        if not isinstance(layer, keras.Layer):
            # Operations have no weights: what a rule is missing for stays as wide as it is.
            return operations.RULES.get(name, LayerCall.fixed_outputs)
        if name in _LAYER_RULES:
            return _LAYER_RULES[name]
    raise ValueError(_unknown(layer, path, name))


def _unknown(layer, path, name):
    hint = ""
    if name == "Lambda":
        hint = (
            " A Lambda may hold a width, and nothing says so: call operations of `keras.ops` on "
            "the tensors instead, or say with a rule what it does."
        )
    return (
        f"`slim_student` received a teacher with the layer '{path}' of the class {name}, and does "
        f"not know how many channels it makes or which of its weights belong to them.{hint} "
        "Expected layers and operations of Keras, of the kinds it knows. Say how this one passes "
        f"channels on with `rules={{{name}: function}}`, where the function takes a `LayerCall` "
        "and returns a `Narrowing` (`keras_ktan.students.layer_rules.same_channels` serves for "
        "a layer without weights that treats each channel alike), or write a student of your own."
    )


__all__ = [
    "LayerCall",
    "NarrowedWeight",
    "Narrowing",
    "find_rule",
    "same_channels",
    "weight",
]
