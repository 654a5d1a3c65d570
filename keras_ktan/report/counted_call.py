"""What a rule that counts multiplications is told about a layer's call."""

import dataclasses
import typing

import keras


@dataclasses.dataclass(frozen=True)
class CountedCall:
    """One call of a layer or of an operation, on a batch of one example.

    A rule is a function of a `CountedCall` that returns the multiply-accumulates that the layer
    does by operations of its own. Those of layers that it calls are added by themselves, except
    in a recurrent cell, whose rule counts the whole of one step.

    Args:
        layer: The `keras.layers.Layer`.
        input_shapes: List of the shapes of the tensors that it takes, in order, masks included.
            The batch axis is 1; an axis that an earlier reshape folded into it makes it larger.
        output_shapes: List of the shapes of the tensors that it makes.
        shapes_inside: Dict from the names of layers that it called to the shape of their output.
        macs_of_cell: Function of a recurrent cell and the shape of its input that returns the
            cell's multiply-accumulates; `None` where no rule knows them.

    Example:

    ```python
    import math

    import keras
    from keras_ktan import compression_report

    class Mix(keras.layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[1], shape[1]))

        def call(self, inputs):
            return keras.ops.einsum("bsc,st->btc", inputs, self.matrix)

    def macs_of_mix(call):
        return math.prod(call.output_shapes[0]) * call.input_shapes[0][1]

    model = keras.Sequential([keras.Input((6, 4)), Mix()])
    report = compression_report(model, model, macs_rules={Mix: macs_of_mix})
    print(report.student.macs)  # 144
    ```
    """

    layer: keras.layers.Layer
    input_shapes: list
    output_shapes: list
    shapes_inside: dict = dataclasses.field(default_factory=dict)
    macs_of_cell: typing.Callable = lambda cell, shape: None
