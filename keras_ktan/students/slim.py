"""`slim_student`: a narrower copy of a teacher."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_ktan.students.channel_graph import ChannelGraph
from keras_ktan.students.depth import without_blocks
from keras_ktan.students.importance import choose, validate_importance
from keras_ktan.students.model_config import (
    build_from_config,
    edited_config,
    seeded_config,
    validate_is_graph,
)
from keras_ktan.students.target import largest_student, parse_target
from keras_ktan.students.transfer import check_shapes, copy_weights, make_trainable
from keras_ktan.students.widths import WidthPlan, validate_divisor, validate_width
from keras_ktan.utils.channel_record import ChannelRecord, attach_channel_record


def slim_student(
    teacher: keras.Model,
    width: float | dict[str, float] = 0.25,
    initialize: str = "teacher",
    divisor: int | None = None,
    name: str | None = None,
    target: dict[str, float | int] | None = None,
    importance: str | Callable = "gamma",
    data: Any = None,
    rules: dict[type, Callable] | None = None,
    seed: int | None = None,
    drop_blocks: Sequence[str] | None = None,
    verbose: bool = True,
) -> keras.Model:
    """A narrower copy of a teacher that starts with the teacher's most important channels.

    A small student trained from random weights needs long to find what the teacher knows, and
    often never does. This one has the teacher's layers, with the same names, inputs and outputs,
    but fewer channels in each, and begins with the weights of those it keeps.

    How it works:

    1. Each channel that a layer makes gets a *decision*: keep or drop. The channels are followed
       through the graph of the model, operations of `keras.ops` and nested models included.
       Tensors that are added share their decisions, a concatenation puts them side by side,
       `Flatten` repeats them, and a grouped convolution ties those of a group. Channels of
       outputs are all kept.
    2. Decisions that belong to the same layers are a *space*. Of each space a share of `width`,
       rounded to the divisor, is kept: the most important ones.
    3. The student is built from the teacher's config with the new numbers of channels, and each
       variable is the teacher's, of which the kept entries of every axis are taken.

    With dropped channels that were zero in the teacher the student computes what the teacher
    does. (LayerNormalization and GroupNormalization with one group are the exception: their
    statistics are those of all channels.) All layers of the student are trainable, also where
    the teacher was frozen. The teacher is not changed.

    A record of the kept channels goes with the student: see
    `keras_ktan.utils.channel_record.channel_record_of`.

    Args:
        teacher: A built Functional or Sequential `keras.Model`; models inside it, too.
        width: Share of the channels to keep, above 0 and up to 1, or a dict from patterns of
            layer paths (as in `fnmatch`) to shares; the first pattern that matches counts, and
            layers that none matches stay as wide as they are. The default is our choice.
        initialize: `"teacher"` for the teacher's weights or `"random"` for new ones.
        divisor: Widths are multiples of it, for the sake of the hardware. `None` (the default)
            is 8 where the teacher's widths are multiples of 8, and 1 elsewhere.
        name: The student's name. Defaults to the teacher's with `slim_` before it.
        target: Instead of a width, a size: `{"macs": 0.25}` or `{"parameters": 100_000}`. A float
            up to 1 is a share of the teacher's, a whole number is absolute. The widest student
            that is not above it is found by bisection on the true numbers of students that are
            built. `width` is not used then.
        importance: `"gamma"`: the absolute gamma of the normalisations, summed over the blocks
            whose outputs are added, and where there is no gamma the norm of the kernels.
            `"activation"`: the root mean square of what the next layers read on `data`.
            `"random"`. Or a function of a layer that returns a number for each of its output
            channels, or `None`; numbers of tied layers are summed.
        data: A batch of the teacher's inputs, for `importance="activation"`.
        rules: Dict from layer classes to functions of a `LayerCall` that return a `Narrowing`
            (both in `keras_ktan.students.layer_rules`), for layers that are not known.
        seed: Seed for `importance="random"` and `initialize="random"`.
        drop_blocks: List of paths, or patterns of them, of `Add` layers at the ends of residual
            blocks that are left out before the others are narrowed: what the block was given is
            handed on. A network of half the blocks may keep more channels at the same size.
        verbose: Whether to print the width that a target led to.

    Returns:
        A built `keras.Model` of the teacher's kind.

    Raises:
        ValueError: If an argument is not one of the above, if the teacher is not built, is
            subclassed or has weights that are no finite numbers, if a layer is of a kind that is
            not known, or if a target cannot be reached.

    Example:

    ```python
    import keras
    from keras_ktan.students import slim_student

    teacher = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(64, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    student = slim_student(teacher, width=0.25)
    print(student.layers[0].filters)  # 16
    ```

    Reference:
        The importance of a channel by its gamma: Liu et al., "Learning Efficient Convolutional
        Networks through Network Slimming", ICCV 2017. Ties between layers as a graph: Fang et
        al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
    """
    _validate(teacher, width, initialize, divisor, importance, data, target)
    shallow = teacher if drop_blocks is None else without_blocks(teacher, drop_blocks)
    graph = ChannelGraph(shallow, rules)
    spaces = graph.decisions.spaces()
    plan = WidthPlan(width, divisor)
    name = name or f"slim_{teacher.name}"

    if target is not None:
        plan, line = _plan_for_target(teacher, graph, spaces, plan, parse_target(target), name)
        if verbose:
            print(line)
    selection = choose(graph, plan.counts(spaces), importance, data, seed)
    student = _build(graph, selection, name, seed if initialize == "random" else None)
    if initialize == "teacher":
        copy_weights(graph, selection, student)
    record = ChannelRecord(teacher.name, plan.width, graph.kept_channels(selection))
    attach_channel_record(student, record)
    return student


def _plan_for_target(teacher, graph, spaces, plan, target, name):
    def make(width):
        counts = plan.scaled(width).counts(spaces)
        first_ones = [space.ids[:count] for space, count in zip(spaces, counts, strict=True)]
        selection = graph.decisions.select(first_ones)
        return tuple(counts), lambda: _build(graph, selection, name, None)

    width, size = largest_student(teacher, target, make)
    line = (
        f"slim_student: width {width:.4g} gives {size:,} {target.measure}, "
        f"the largest number not above the target {target.wanted!r}."
    )
    return plan.scaled(width), line


def _build(graph, selection, name, seed):
    config = edited_config(graph.config, graph.edits(selection))
    config["name"] = name
    if seed is not None:
        config = seeded_config(config, seed)
    student = build_from_config(graph.teacher, config)
    make_trainable(student)
    check_shapes(graph, selection, student)
    return student


def _validate(teacher, width, initialize, divisor, importance, data, target):
    if not isinstance(teacher, keras.Model):
        raise ValueError(
            f"`teacher` is a {type(teacher).__name__}. Expected a built `keras.Model`. Pass the "
            "model to make a narrower copy of."
        )
    validate_is_graph(teacher)
    validate_width(width)
    validate_divisor(divisor)
    validate_importance(importance, data)
    if target is not None:
        parse_target(target)
    if initialize not in ("teacher", "random"):
        raise ValueError(
            f"`initialize={initialize!r}`. Expected 'teacher', for the teacher's weights of the "
            "channels that are kept, or 'random'. Correct the name."
        )
    for variable in teacher.weights:
        values = keras.ops.convert_to_numpy(variable)
        if not np.isfinite(values.astype("float64")).all():
            raise ValueError(
                f"The teacher's variable '{variable.path}' contains numbers that are not finite. "
                "Expected a trained teacher. Load its weights, or train it again."
            )
