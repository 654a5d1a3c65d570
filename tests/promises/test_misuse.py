"""Misuse is refused before the first step: what came, what was expected, how to put it right."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers
from models import image_model, learned_pair, loss_from_logits

from keras_ktan import (
    FeatureDiscriminator,
    FeaturePair,
    KTANDistiller,
    OutputPair,
    TeacherToStudent,
    compression_report,
    export_student,
)


def teacher(**kwargs):
    return image_model(6, "teacher", **kwargs)


def student(**kwargs):
    return image_model(4, "student", **kwargs)


def distiller(teacher_model=None, student_model=None, **kwargs):
    return KTANDistiller(teacher_model or teacher(), student_model or student(), **kwargs)


def compiled(distillation=None, **kwargs):
    """Compile a distiller; a misuse is one argument that differs from these."""
    (distillation or distiller()).compile(**{"loss": loss_from_logits(), **kwargs})


def paired(*args, **kwargs):
    return distiller(feature_pairs=FeaturePair(*args, **kwargs))


def classifier(
    classes=5, activation=None, name="student", shape=(8, 8, 1), key=None, layer_name="features"
):
    """A classifier with some properties that `image_model` has not."""
    inputs = keras.Input(shape)
    hidden = layers.Conv2D(4, 3, activation="relu", name=layer_name)(inputs)
    pooled = layers.GlobalAveragePooling2D()(hidden)
    outputs = layers.Dense(classes, activation=activation)(pooled)
    return keras.Model(inputs, {key: outputs} if key else outputs, name=name)


def mask_model(name="student"):
    """A model without class logits whose only map is its output's input, made by a layer twice."""
    inputs = keras.Input((8, 8, 1))
    shared = layers.Conv2D(1, 3, padding="same", name="features")
    return keras.Model(inputs, shared(shared(inputs)), name=name)


def pixel_model(name="student"):
    """A model without class logits that has a map by the name `features`."""
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, padding="same", name="features")(inputs)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="mask")(hidden), name=name)


def unbuilt():
    return keras.Sequential([layers.Flatten(), layers.Dense(5)], name="fresh")


def with_nan():
    model = teacher()
    kernel = model.get_layer("features").kernel
    values = np.array(keras.ops.convert_to_numpy(kernel))
    values[0, 0, 0, 0] = np.nan
    kernel.assign(values)
    return model


def with_memory():
    inputs = keras.Input(batch_shape=(4, 8, 8, 1))
    steps = layers.Reshape((8, 8))(inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.GRU(3, stateful=True, name="gru")(steps)))


def sharing_a_layer():
    first = teacher()
    inputs = keras.Input((8, 8, 1))
    hidden = first.get_layer("stem")(inputs)
    outputs = layers.Dense(5)(layers.GlobalAveragePooling2D()(hidden))
    return distiller(first, keras.Model(inputs, outputs))


def running_a_layer_twice():
    inputs = keras.Input((8, 8, 1))
    shared = layers.Conv2D(1, 3, padding="same", name="features")
    pooled = layers.GlobalAveragePooling2D()(shared(shared(inputs)))
    return keras.Model(inputs, layers.Dense(5)(pooled), name="loop")


def with_open_channels():
    inputs = keras.Input((8, 8, None))
    opened = layers.ReLU(name="features")(inputs)
    hidden = layers.Conv2D(4, 3)(keras.ops.mean(opened, axis=-1, keepdims=True))
    outputs = layers.Dense(5)(layers.GlobalAveragePooling2D()(hidden))
    return keras.Model(inputs, outputs, name="student")


def pyramid(name="student"):
    inner_input = keras.Input((8, 8, 1))
    low = layers.Conv2D(4, 3)(inner_input)
    inner = keras.Model(inner_input, {"P3": low, "P4": layers.Conv2D(4, 3)(low)}, name="fpn")
    inputs = keras.Input((8, 8, 1))
    pooled = layers.GlobalAveragePooling2D()(inner(inputs)["P4"])
    return keras.Model(inputs, layers.Dense(5)(pooled), name=name)


def ranks(name):
    """Maps of rank 4 and 3 with the same channels."""
    inputs = keras.Input((8, 8, 1))
    image = layers.Conv2D(4, 3, name="image")(inputs)
    sequence = layers.Conv1D(4, 3, name="sequence")(layers.Reshape((36, 4))(image))
    outputs = layers.Dense(5)(layers.GlobalAveragePooling1D()(sequence))
    return keras.Model(inputs, outputs, name=name)


def frozen():
    model = student()
    model.trainable = False
    return model


def two_pairs(**shared):
    """The stem has 6 and 4 channels, so have the features of the teacher; the student's have 3."""
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, name="stem")(inputs)
    hidden = layers.Conv2D(3, 3, name="features")(hidden)
    outputs = layers.Dense(5)(layers.GlobalAveragePooling2D()(hidden))
    small = keras.Model(inputs, outputs, name="small")
    return distiller(
        student_model=small,
        feature_pairs=[
            FeaturePair("stem", "stem", **shared),
            FeaturePair("features", "features", **shared),
        ],
    )


def one_optimizer(*networks):
    optimizer = keras.optimizers.Adam()
    learned = distiller(feature_pairs=learned_pair())
    compiled(learned, adversarial_loss_weight=0.02, **dict.fromkeys(networks, optimizer))


def judged_before(*condition):
    """A discriminator that was built elsewhere, for maps with the right channels."""
    discriminator = FeatureDiscriminator()
    discriminator(np.ones((1, 4, 4, 4), "float32"), *condition)
    return discriminator


MISUSES = {
    # Models
    "teacher is a path": (
        lambda: KTANDistiller("teacher.keras", student()),
        ("teacher='teacher.keras'", "Expected a keras.Model", "load_model"),
    ),
    "student is a layer": (
        lambda: KTANDistiller(teacher(), layers.Dense(5)),
        ("student=<Dense", "Expected a keras.Model", "Pass the model itself"),
    ),
    "teacher is not built": (
        lambda: KTANDistiller(unbuilt(), student()),
        ("The teacher 'fresh' is not built", "Expected a built model", "Call it once"),
    ),
    "student is not built": (
        lambda: KTANDistiller(teacher(), unbuilt()),
        ("The student 'fresh' is not built", "Expected a built model", "Call it once"),
    ),
    "one model twice": (
        lambda: KTANDistiller(model := teacher(), model),
        ("'teacher', as teacher and as student", "Expected two", "clone_model"),
    ),
    "a shared layer": (
        sharing_a_layer,
        ("share the weights ['stem/kernel'", "Expected none shared", "layers of its own"),
    ),
    "a teacher with a NaN": (
        lambda: distiller(with_nan()),
        ("'features/kernel' holds NaN", "Expected a trained teacher", "Load a good checkpoint"),
    ),
    "a teacher with a memory": (
        lambda: KTANDistiller(with_memory(), student()),
        ("['gru'] are stateful", "Expected a teacher that does not change", "stateful=False"),
    ),
    "inputs that differ": (
        lambda: distiller(classifier(shape=(8, 8, 3), name="teacher")),
        ("(None, 8, 8, 3)", "Expected", ""),
    ),
    "unlike classes": (
        lambda: compiled(distiller(student_model=classifier(classes=7))),
        ("teacher scores 5 classes and the student 7", "Expected the same", "Give the student"),
    ),
    "a student without trainable weights": (
        lambda: compiled(distiller(student_model=frozen())),
        ("no trainable weights", "Expected at least one", "`student.trainable = True`"),
    ),
    # Temperature and logits
    "temperature 0": (
        lambda: distiller(temperature=0),
        ("temperature=0", "Expected a number above 0", "Try `temperature=4.0`"),
    ),
    "temperature below 0": (
        lambda: distiller(temperature=-1.5),
        ("temperature=-1.5", "Expected a number above 0", "Try"),
    ),
    "temperature NaN": (
        lambda: distiller(temperature=float("nan")),
        ("temperature=nan", "Expected a number above 0", "Try"),
    ),
    "temperature infinite": (
        lambda: distiller(temperature=float("inf")),
        ("temperature=inf", "Expected a number above 0", "Try"),
    ),
    "temperature a word": (
        lambda: distiller(temperature="4"),
        ("temperature='4'", "Expected a number above 0", "Try"),
    ),
    "an unknown kind": (
        lambda: OutputPair(kind="relu"),
        ("kind='relu'", "Expected one of ['auto', 'regression', 'sigmoid', 'softmax']", "Write"),
    ),
    "an output pair that weighs nothing": (
        lambda: OutputPair(weight=0),
        ("weight=0", "Expected a number above 0", "leave it out"),
    ),
    "an output pair of tensors": (
        lambda: OutputPair(student().output),
        ("teacher_output=<KerasTensor", "Expected the key or the position", "Write"),
    ),
    "output_pairs are names": (
        lambda: distiller(output_pairs="logits"),
        ("output_pairs='logits'", "Expected an OutputPair", "Write `output_pairs=OutputPair("),
    ),
    "an output that the teacher has not": (
        lambda: distiller(
            classifier(key="cls", name="teacher"),
            classifier(key="cls"),
            output_pairs=OutputPair("logits"),
        ),
        ("The teacher 'teacher' has no output 'logits'", "['cls']", "Correct `teacher_output`"),
    ),
    "an output in the teacher alone": (
        lambda: distiller(
            classifier(key="cls", name="teacher"),
            classifier(key="scores"),
            output_pairs=OutputPair("cls"),
        ),
        ("The student 'student' has no output 'cls'", "['scores']", "Correct"),
    ),
    "a key for a single output": (
        lambda: distiller(output_pairs=OutputPair(0)),
        ("teacher_output=0", "Expected None", "Leave `teacher_output` out"),
    ),
    "a softmax over one class": (
        lambda: compiled(distiller(classifier(1, name="teacher"), classifier(1))),
        ("single class score", "Expected two or more classes", "kind='sigmoid'"),
    ),
    "a student that ends in a softmax, and a loss on logits": (
        lambda: compiled(distiller(student_model=classifier(activation="softmax"))),
        ("come out of a softmax", "Expected a loss on prob", "Leave out"),
    ),
    "a student that ends in a sigmoid, and a loss of one class": (
        lambda: compiled(distiller(student_model=classifier(activation="sigmoid"))),
        ("the student's come out of a sigmoid", "Expected models", "Name the"),
    ),
    "softened logits where no outputs pair": (
        lambda: compiled(distiller(output_pairs=[]), logits_loss_weight=1.0),
        ("no output of the teacher is paired", "Expected a pair", "set `logits_loss_weight=0`"),
    ),
    "a loss that takes probabilities, by name": (
        lambda: compiled(loss="sparse_categorical_crossentropy"),
        (
            "loss='sparse_categorical_crossentropy'",
            "Expected `from_logits=True`",
            "Write `loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)`",
        ),
    ),
    "a loss that takes probabilities, as an object": (
        lambda: compiled(loss=keras.losses.CategoricalCrossentropy()),
        (
            "probabilities",
            "Expected `from_logits=True`",
            "CategoricalCrossentropy(from_logits=True)",
        ),
    ),
    # Pairs
    "feature_pairs are names": (
        lambda: distiller(feature_pairs=("features", "features")),
        ("feature_pairs=('features', 'features')", "Expected a FeaturePair", "Write"),
    ),
    "feature_pairs are empty": (
        lambda: distiller(feature_pairs=[]),
        ("feature_pairs=[]", "not empty", "Write `feature_pairs=FeaturePair("),
    ),
    "a wrong teacher's layer": (
        lambda: paired("feature", "features"),
        ("No layer 'feature' in the teacher", "'features'", "Correct `teacher_layer_name`"),
    ),
    "a wrong student's layer": (
        lambda: paired("features", "stage4_out"),
        ("No layer 'stage4_out' in the student", "the nearest are", "Correct `student_layer_name`"),
    ),
    "a layer that runs twice": (
        lambda: distiller(running_a_layer_twice(), feature_pairs=FeaturePair(*["features"] * 2)),
        ("'features' of the teacher 'loop' ran 2 times", "Expected exactly once", "Name a layer"),
    ),
    "a pyramid without a key": (
        lambda: distiller(student_model=pyramid(), feature_pairs=FeaturePair("features", "fpn")),
        ("'fpn' returns several tensors (['P3', 'P4'])", "Expected one tensor", "'fpn:P3'"),
    ),
    "a wrong key": (
        lambda: distiller(student_model=pyramid(), feature_pairs=FeaturePair("features", "fpn:P6")),
        ("No output 'P6' at 'fpn:P6'", "['P3', 'P4']", "Correct the part of the path"),
    ),
    "a key for a single tensor": (
        lambda: paired("features:0", "features"),
        ("'features:0' returns a single tensor", "Expected a path without a colon", "Remove ':0'"),
    ),
    "a map with open channels": (
        lambda: distiller(
            student_model=with_open_channels(), feature_pairs=FeaturePair("features", "features")
        ),
        ("(None, 8, 8, None)", "Expected a known number of channels", "Name layers"),
    ),
    "no clear last map": (
        lambda: compiled(
            distiller(mask_model("teacher"), mask_model()), feature_loss_weight=1.0, loss="mse"
        ),
        ("No layer was named and the teacher 'teacher'", "Expected a FeaturePair", "Name one"),
    ),
    "a pair of models": (
        lambda: FeaturePair(teacher(), "features"),
        ("teacher_layer_name=<Functional", "Expected the path of a layer", "such as"),
    ),
    "an empty name": (
        lambda: FeaturePair("features", ""),
        ("student_layer_name=''", "Expected the path of a layer", "such as"),
    ),
    "a pair that weighs nothing": (
        lambda: FeaturePair("a", "b", weight=0),
        ("weight=0", "Expected a number above 0", "leave it out"),
    ),
    "a pair that weighs less than nothing": (
        lambda: FeaturePair("a", "b", weight=-2.0),
        ("weight=-2.0", "Expected a number above 0", "leave it out"),
    ),
    "a pair that weighs without end": (
        lambda: FeaturePair("a", "b", weight=float("inf")),
        ("weight=inf", "Expected a number above 0", "leave it out"),
    ),
    "a pair with T2S by name": (
        lambda: FeaturePair("a", "b", teacher_to_student="task"),
        ("teacher_to_student='task'", "Expected a TeacherToStudent", "TeacherToStudent(...)"),
    ),
    "a pair with T2S for D": (
        lambda: FeaturePair("a", "b", discriminator=TeacherToStudent()),
        ("discriminator=<TeacherToStudent", "Expected a FeatureDiscriminator", "Write"),
    ),
    # T2S and discriminators
    "an unknown objective": (
        lambda: TeacherToStudent(objective="labels"),
        (
            "objective='labels'",
            "Expected one of ('auto', 'selection', 'stud",
            "Leave it out",
        ),
    ),
    "an unknown activation": (
        lambda: TeacherToStudent(activation="rellu"),
        ("activation='rellu'", "Expected", ""),
    ),
    "a task objective without classes": (
        lambda: distiller(
            pixel_model("teacher"),
            pixel_model(),
            feature_pairs=FeaturePair(
                "features", "features", teacher_to_student=TeacherToStudent(objective="task")
            ),
        ),
        (
            "objective='task' for a TeacherToStudent of models without class logits",
            "Expected a classifier",
            "output_pairs",
        ),
    ),
    "a head objective with nothing to compare with": (
        lambda: distiller(
            pixel_model("teacher"),
            pixel_model(),
            feature_pairs=FeaturePair(
                "features",
                "features",
                teacher_to_student=TeacherToStudent(objective="student_head"),
            ),
            output_pairs=[],
        ).compile(loss="mse", student_loss_weight=0.0),
        ("objective='student_head'", "Expected", ""),
    ),
    "one T2S for maps of unlike channels": (
        lambda: two_pairs(teacher_to_student=TeacherToStudent()),
        ("maps of 6 and 3 channels after maps of 6 and 4", "Expected the same", "of its own"),
    ),
    "one D for maps of unlike channels": (
        lambda: two_pairs(discriminator=FeatureDiscriminator()),
        ("student maps of 3 and 4 channels", "Expected the same number", "of its own"),
    ),
    "one D for maps of unlike ranks": (
        lambda: distiller(
            ranks("teacher"),
            ranks("student"),
            feature_pairs=[
                FeaturePair("image", "image", discriminator=(logits_of := FeatureDiscriminator())),
                FeaturePair("sequence", "sequence", discriminator=logits_of),
            ],
        ),
        ("FeatureDiscriminator", "Expected", "of its own"),
    ),
    "a conditional D that was built for other classes": (
        lambda: compiled(
            paired("features", "features", discriminator=judged_before(np.ones((1, 7), "float32")))
        ),
        ("7", "Expected", ""),
    ),
    "a conditional D without classes": (
        lambda: compiled(
            distiller(
                pixel_model("teacher"),
                pixel_model(),
                feature_pairs=FeaturePair(
                    "features", "features", discriminator=FeatureDiscriminator(conditional=True)
                ),
            ),
            loss="mse",
            adversarial_loss_weight=0.02,
        ),
        (
            "conditional=True for models without paired class outputs",
            "Expected a class",
            "conditional=False",
        ),
    ),
    "a T2S that knows no student": (
        lambda: TeacherToStudent()(np.ones((1, 4, 4, 3), "float32")),
        ("before it knows the student's shape", "Expected `connect(", "a KTANDistiller does it"),
    ),
    "no filters": (
        lambda: FeatureDiscriminator(filters=0),
        ("filters=0", "Expected a whole number of 1 or more", "FeatureDiscriminator(filters=3)"),
    ),
    "noise below 0": (
        lambda: FeatureDiscriminator(noise_stddev=-1),
        ("noise_stddev=-1", "Expected a number of 0 or more", "Use 0"),
    ),
    "a wish for a condition": (
        lambda: FeatureDiscriminator(conditional="maybe"),
        ("conditional='maybe'", "Expected True, False or 'auto'", "Leave it out"),
    ),
    # compile
    "a weight below 0": (
        lambda: compiled(feature_loss_weight=-0.5),
        ("feature_loss_weight=-0.5", "Expected a number of 0 or more", "Use 0"),
    ),
    "a weight that is NaN": (
        lambda: compiled(adversarial_loss_weight=float("nan")),
        ("adversarial_loss_weight=nan", "Expected a number of 0 or more", "Use 0"),
    ),
    "a weight that is True": (
        lambda: compiled(student_loss_weight=True),
        ("student_loss_weight=True", "Expected a number", "LearningRateSchedule"),
    ),
    "a weight that is a function": (
        lambda: compiled(logits_loss_weight=lambda step: 1.0),
        ("logits_loss_weight=<function", "Expected a number", "LearningRateSchedule"),
    ),
    "a weight that is None": (
        lambda: compiled(student_loss_weight=None),
        ("student_loss_weight=None", "Expected a number", "Use 0"),
    ),
    "no weight above 0": (
        lambda: compiled(
            student_loss_weight=0,
            logits_loss_weight=0,
            feature_loss_weight=0,
            adversarial_loss_weight=0,
        ),
        (
            "0 for every loss weight",
            "Expected at least one above 0",
            "Set `student_loss_weight=1.0`",
        ),
    ),
    "an unknown feature loss": (
        lambda: compiled(feature_loss="l2"),
        ("feature_loss='l2'", "['cosine', 'mse', 'normalized_mse', 'pooled_cosine']", "Write"),
    ),
    "a feature loss as an object": (
        lambda: compiled(feature_loss=["cosine"]),
        ("feature_loss=['cosine']", "Expected one of", "Write `feature_loss='cosine'`"),
    ),
    "what belongs to the adversary without its weight": (
        lambda: compiled(
            adversarial_loss="hinge", discriminator_optimizer=keras.optimizers.Adam(1e-4)
        ),
        (
            "adversarial_loss, discriminator_optimizer without adversarial_loss_weight, which is 0",
            "Expected a weight beside it",
            "Pass `adversarial_loss_weight=0.02`",
        ),
    ),
    "an unknown adversarial loss": (
        lambda: compiled(adversarial_loss="wasserstein", adversarial_loss_weight=0.02),
        ("adversarial_loss='wasserstein'", "['bce', 'hinge', 'least_squares']", "Write"),
    ),
    "no loss anywhere": (
        lambda: compiled(loss=None),
        ("loss=None, and the student 'student' is not compiled", "Expected a loss", "Pass `loss"),
    ),
    "no optimizer": (
        lambda: compiled(optimizer=None),
        ("optimizer=None", "Expected", ""),
    ),
    "one optimizer for student and D": (
        lambda: one_optimizer("optimizer", "discriminator_optimizer"),
        ("one optimizer object for two networks", "Expected an object for each", "Make a second"),
    ),
    "one optimizer for T2S and D": (
        lambda: one_optimizer("t2s_optimizer", "discriminator_optimizer"),
        ("one optimizer object for two networks", "Expected an object for each", "from_config"),
    ),
    # Reports and exports
    "a report on an unbuilt model": (
        lambda: compression_report(teacher(), unbuilt()),
        ("'fresh' is not built", "Expected a built model", "Call it once"),
    ),
    "an export of an unbuilt student": (
        lambda: export_student(unbuilt(), "never_written"),
        ("'fresh' is not built", "Expected a built model", "Call it once"),
    ),
    "an export with too many names": (
        lambda: export_student(student(), "never_written", output_names=["logits", "boxes"]),
        (
            "output_names=['logits', 'boxes'] for a student with 1 outputs",
            "Expected one",
            "Correct",
        ),
    ),
    "an export with one name for two outputs": (
        lambda: export_student(
            keras.Model(i := keras.Input((3,)), [layers.Dense(2)(i), layers.Dense(4)(i)]),
            "never_written",
            output_names=["scores", "scores"],
        ),
        ("output_names=['scores', 'scores']", "Expected", "Correct"),
    ),
}


@pytest.mark.promise(11)
@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_refused_in_three_parts(misuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    act, parts = MISUSES[misuse]
    with pytest.raises(ValueError) as error:
        act()
    assert_three_parts(error.value, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics", "loss_weights"])
def test_with_the_students_own_loss_its_own_metrics_are_used(argument):
    model = student()
    model.compile(loss=loss_from_logits())
    distillation = distiller(student_model=model)
    with pytest.raises(ValueError) as error:
        distillation.compile(**{argument: ["accuracy"]})
    assert_three_parts(
        error.value, f"{argument}=['accuracy']", f"Expected no `{argument}` here", "Pass it to"
    )


@pytest.mark.promise(11)
def test_a_refused_compile_leaves_the_game_as_it_was():
    distillation = distiller()
    compiled(distillation, adversarial_loss_weight=0.0)
    objectives, optimizer = distillation.objectives, distillation.optimizer
    with pytest.raises(ValueError, match="feature_loss='l2'"):
        compiled(distillation, feature_loss="l2")
    assert distillation.objectives is objectives and distillation.optimizer is optimizer


@pytest.mark.parametrize(
    "allowed",
    [
        {"logits_loss_weight": 0.0, "loss": keras.losses.SparseCategoricalCrossentropy()},
        {"logits_loss_weight": 0, "student_loss_weight": 2, "feature_loss_weight": np.float64(0.5)},
    ],
)
def test_what_is_unusual_but_right_is_not_refused(allowed):
    probabilities = {"activation": "softmax"} if "loss" in allowed else {}
    distillation = distiller(
        classifier(name="teacher", **probabilities), classifier(**probabilities)
    )
    compiled(distillation, **allowed)
    assert distillation.objectives.is_active("feature") and not distillation.objectives.is_active(
        "logits"
    )
