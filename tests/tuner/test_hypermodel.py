"""A search with KerasTuner: what it varies, what it refuses, what it keeps."""

import json
import subprocess
import sys

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from helpers import assert_three_parts
from keras_tuner.errors import FailedTrialError, FatalRuntimeError, FatalValueError
from models import assert_changed, assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller
from keras_ktan.introspection.model_digest import teacher_digest
from keras_ktan.tuner import KTANHyperModel, best_student
from keras_ktan.tuner.search_space import DEFAULTS, SearchSpace
from keras_ktan.tuner.trial_guard import validate_objective

ACCURACY = keras_tuner.Objective("val_accuracy", "max")
# One student, taught in one way but for the weight of the logits.
FIXED = {
    "student_loss_weight": 1.0,
    "logits_loss_ramp": "constant",
    "feature_loss_ramp": "falling",
    "adversarial_loss_ramp": "constant",
    "feature_loss_weight": 0.5,
    "adversarial_loss_weight": 0.02,
    "temperature": 3.0,
    "t2s_objective": "task",
    "feature_loss": "mse",
    "adversarial_loss": "hinge",
    "discriminator_filters": 4,
    "discriminator_noise": 0.25,
}
LABELS_ONLY = {f"{term}_loss_ramp": "off" for term in ("logits", "feature", "adversarial")}
QUICK = {**FIXED, **LABELS_ONLY, "student_loss_weight": (0.1, 10.0)}


def compile_arguments(hp=None, rate=0.05):
    return {
        "optimizer": keras.optimizers.SGD(rate),
        "loss": loss_from_logits(),
        "metrics": ["accuracy"],
        "run_eagerly": True,  # a few steps: building a graph would take longer
    }


def make_hypermodel(space=None, **changes):
    arguments = {
        "build_student": lambda hp: image_model(2, "student"),
        "teacher": image_model(24, "teacher", seed=1),
        "compile_arguments": compile_arguments,
        "training_steps": 8,
        "search_space": FIXED if space is None else space,
        **changes,
    }
    return KTANHyperModel(**arguments)


def make_tuner(folder, hypermodel, kind=keras_tuner.RandomSearch, objective=ACCURACY, **more):
    if kind is not keras_tuner.Hyperband:
        more.setdefault("max_trials", 2)
    return kind(hypermodel, objective=objective, directory=folder, seed=1, **more)


def search(tuner, epochs=2, **more):
    train, validation = image_data(16), image_data(40, seed=1)
    batches = {"batch_size": 8, "validation_batch_size": 40}
    tuner.search(*train, validation_data=validation, **batches, epochs=epochs, verbose=0, **more)
    return tuner


def statuses(tuner):
    return [trial.status for _, trial in sorted(tuner.oracle.trials.items())]


# What is searched.


def test_the_middle_of_every_default_range_is_the_distillers_default():
    hp = keras_tuner.HyperParameters()
    SearchSpace().draw(hp)
    floats = {one.name: one for one in hp.space if type(one).__name__ == "Float"}
    middles = {name: one.prob_to_value(0.5) for name, one in floats.items()}
    # The middle of a logarithmic range is the geometric mean: these numbers are KTANDistiller's.
    expected = {
        "student_loss_weight": 1.0,
        "logits_loss_weight": 1.0,
        "feature_loss_weight": 1.0,
        "adversarial_loss_weight": 0.02,
        "temperature": 4.0,
        "discriminator_noise": 2.0,
    }
    assert middles.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(middles[name], value, rtol=1e-9)


def test_what_belongs_to_a_term_that_is_off_is_not_searched():
    hp = keras_tuner.HyperParameters()
    hp.values = {"adversarial_loss_ramp": "off", "feature_loss_ramp": "constant"}
    drawn = SearchSpace({"discriminator_filters": 4}).draw(hp)
    assert drawn.keys() == DEFAULTS.keys()
    unused = ("adversarial_loss_weight", "adversarial_loss", "discriminator_filters")
    for name in (*unused, "discriminator_noise"):
        assert drawn[name] is None and name not in hp.values
    assert drawn["feature_loss_weight"] == 1.0


def test_a_tuner_tries_no_ramp_that_is_not_in_the_space(tmp_path):
    # A tuner makes every condition true once, to see what is searched behind it.
    space = {**FIXED, **LABELS_ONLY, "feature_loss_ramp": ["off", "falling"]}
    tuner = make_tuner(tmp_path, make_hypermodel(space))
    names = [one.name for one in tuner.oracle.get_space().space]
    assert "feature_loss_weight" in names and "adversarial_loss_weight" not in names


def test_a_space_can_be_narrowed_and_fixed():
    hp = keras_tuner.HyperParameters()
    space = {"temperature": (2.0, 4.5), "logits_loss_weight": [0.5, 2], "t2s_objective": ["task"]}
    drawn = SearchSpace(space).draw(hp)
    by_name = {one.name: one for one in hp.space}
    assert (by_name["temperature"].min_value, by_name["temperature"].max_value) == (2.0, 4.5)
    assert drawn["temperature"] == 3.0  # the square root of 2 · 4.5
    assert by_name["logits_loss_weight"].values == [0.5, 2.0]
    assert drawn["t2s_objective"] == "task" and by_name["t2s_objective"].values == ("task",)


@pytest.mark.parametrize(
    ("space", "came", "expected", "remedy"),
    [
        ({"temprature": 4.0}, "'temprature'", "names among", "mean 'temperature'?"),
        ({"temperature": (4.0, 2.0)}, "(4.0, 2.0)", "below the upper", "range `(low, high)`"),
        ({"temperature": (0.0, 2.0)}, "(0.0, 2.0)", "above 0", "fix it with one value"),
        ({"temperature": 0}, "=0", "above 0", "fix it with one value"),
        ({"temperature": "hot"}, "'hot'", "a number", "fix it with one value"),
        ({"feature_loss_weight": -1.0}, "=-1.0", "a number", "fix it with one value"),
        ({"feature_loss_weight": []}, "=[]", "at least one", "Leave it out"),
        ({"t2s_objective": ["task", "tsak"]}, "'tsak'", "one of", "Write"),
        ({"feature_loss_ramp": "rising"}, "'rising'", "one of", "Write"),
        ({"discriminator_filters": (8, 16.5)}, "16.5", "whole numbers", "narrow it with a list"),
    ],
)
def test_a_wrong_space_is_refused(space, came, expected, remedy):
    with pytest.raises(ValueError) as caught:
        SearchSpace(space)
    assert_three_parts(caught.value, came, expected, remedy)


def test_a_trial_is_compiled_with_what_was_drawn():
    hp = keras_tuner.HyperParameters()
    hp.values = {"logits_loss_weight": 0.3}
    distiller = make_hypermodel().build(hp)
    assert isinstance(distiller, KTANDistiller)
    compiled = distiller.get_compile_config()
    assert compiled["student_loss_weight"] == 1.0
    assert compiled["logits_loss_weight"] == 0.3
    assert compiled["adversarial_loss_weight"] == 0.02
    falling = keras.saving.deserialize_keras_object(compiled["feature_loss_weight"])
    # Half a cosine from 0.5 at step 0 to 0 at step 8.
    np.testing.assert_allclose([falling(step) for step in (0, 4, 8)], [0.5, 0.25, 0.0], atol=1e-7)
    assert (compiled["feature_loss"], compiled["adversarial_loss"]) == ("mse", "hinge")
    assert distiller.temperature == 3.0
    (pair,) = distiller.feature_pairs
    # By default the stage before the last.
    assert (pair.teacher_layer_name, pair.student_layer_name) == ("stem_out", "stem_out")
    assert pair.teacher_to_student.objective == "task"
    assert (pair.discriminator.filters, pair.discriminator.noise_stddev) == (4, 0.25)


def test_a_term_that_is_off_has_the_weight_0():
    hp = keras_tuner.HyperParameters()
    distiller = make_hypermodel({**LABELS_ONLY, "student_loss_weight": 2.0}).build(hp)
    compiled = distiller.get_compile_config()
    weights = [compiled[f"{term}_loss_weight"] for term in ("logits", "feature", "adversarial")]
    assert weights == [0.0, 0.0, 0.0] and compiled["student_loss_weight"] == 2.0


# What is refused before anything is trained.


class CountTrainings(keras.callbacks.Callback):
    begun = 0

    def __init__(self):
        super().__init__()
        self.objective = "to count"  # not the tuner's

    def on_train_begin(self, logs=None):
        CountTrainings.begun += 1


@pytest.mark.parametrize(
    ("objective", "came", "expected"),
    [
        (keras_tuner.Objective("loss", "min"), "'loss'", "weighted sum"),
        (
            keras_tuner.Objective("feature_loss", "min"),
            "'feature_loss'",
            "distillation term",
        ),
        (keras_tuner.Objective("logits_loss", "min"), "'logits_loss'", "distillation term"),
        (
            keras_tuner.Objective("student_loss", "min"),
            "'student_loss'",
            "distillation term",
        ),
        (
            keras_tuner.Objective("adversarial_loss", "min"),
            "'adversarial_loss'",
            "distillation term",
        ),
        (keras_tuner.Objective("discriminator_accuracy", "max"), "_accuracy'", "distillation term"),
        (
            keras_tuner.Objective("ktan_logits_loss", "min"),
            "'ktan_logits_loss'",
            "distillation term",
        ),
        (keras_tuner.Objective("val_accuracy", "min"), "direction 'min'", "'max'"),
        (keras_tuner.Objective("val_loss", "max"), "direction 'max'", "'min'"),
    ],
)
def test_an_objective_that_says_nothing_of_the_student_is_refused(objective, came, expected):
    with pytest.raises(ValueError) as caught:
        validate_objective(objective)
    assert came in str(caught.value) and expected in str(caught.value)
    assert "Write `objective=keras_tuner.Objective(" in str(caught.value)


def test_objectives_of_the_student_are_taken():
    for name, direction in (("val_accuracy", "max"), ("val_loss", "min"), ("val_mAP", "max")):
        validate_objective(keras_tuner.Objective(name, direction))


def test_the_search_ends_with_the_reason_before_the_first_step(tmp_path):
    CountTrainings.begun = 0
    objective = ["val_accuracy", keras_tuner.Objective("feature_loss", "min")]
    tuner = make_tuner(tmp_path, make_hypermodel(QUICK), objective=objective)
    with pytest.raises(FatalValueError, match="the objective 'feature_loss'"):
        search(tuner, callbacks=[CountTrainings()])
    assert CountTrainings.begun == 0
    tuner = make_tuner(tmp_path / "good", make_hypermodel(QUICK), max_trials=1)
    search(tuner, epochs=1, callbacks=[CountTrainings()])
    assert CountTrainings.begun == 1  # the counter counts


def test_no_objective_is_refused():
    with pytest.raises(FatalValueError, match="no objective. Expected a metric of the student"):
        validate_objective(keras_tuner.oracles.RandomSearchOracle(None).objective)


def test_no_searched_weight_is_in_the_validation_loss():
    student, data = image_model(2, "student", regularizer="l2"), image_data(16)
    losses = []
    for weight in (1.0, 0.001):
        distiller = KTANDistiller(image_model(8, "teacher", seed=1), student)
        weights = {f"{term}_loss_weight": weight for term in ("student", "logits", "feature")}
        distiller.compile(**compile_arguments(), **weights)
        losses.append(distiller.evaluate(*data, verbose=0, return_dict=True)["loss"])
    assert losses[0] == losses[1] > 1.0


def test_an_objective_that_is_not_in_the_logs_ends_the_search(tmp_path):
    tuner = make_tuner(
        tmp_path, make_hypermodel(QUICK), objective=keras_tuner.Objective("val_acuracy", "max")
    )
    with pytest.raises(FatalValueError) as caught:
        search(tuner)
    assert_three_parts(caught.value, "val_acuracy", "'val_accuracy'", "validation data")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build_student": image_model(2, "student")}, "a function of `hp`"),
        ({"compile_arguments": {"loss": "mse"}}, "a function of `hp`"),
        ({"training_steps": None}, "training_steps=epochs"),
        ({"training_steps": 0}, "training_steps=epochs"),
        ({"temperature": 4.0}, "in the search space"),
        (
            {
                "feature_pairs": FeaturePair(
                    "features", "features", discriminator=FeatureDiscriminator()
                )
            },
            "from trial to trial",
        ),
        ({"output_pairs": [], "search_space": {}}, "objective='task' .* Use objective="),
    ],
)
def test_wrong_arguments_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make_hypermodel(**changes)


def test_a_searched_weight_is_not_compiled_by_the_user_too(tmp_path):
    hypermodel = make_hypermodel(
        compile_arguments=lambda hp: {**compile_arguments(), "feature_loss_weight": 1.0}
    )
    with pytest.raises(FatalValueError, match="'feature_loss_weight'. from compile_arguments"):
        make_tuner(tmp_path, hypermodel)


def test_a_tuner_with_a_loss_of_its_own_is_refused(tmp_path):
    tuner = make_tuner(tmp_path, make_hypermodel(), loss="mse")
    with pytest.raises(ValueError, match="not to the tuner"):
        search(tuner)


def test_a_search_with_other_bounds_is_not_gone_on_with(tmp_path):
    make_tuner(tmp_path, make_hypermodel()).save()
    tuner = make_tuner(tmp_path, make_hypermodel({**FIXED, "temperature": 4.0}))
    with pytest.raises(FatalValueError, match="temperature=3.0 from the tuner.*says 4.0"):
        search(tuner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (lambda: {"teacher": image_model(24, "teacher", seed=2)}, "teacher"),
        (lambda: {"training_steps": 9}, "training_steps=9 .* begun with 8"),
    ],
)
def test_a_search_with_another_teacher_or_length_is_not_gone_on_with(changes, name, tmp_path):
    search(make_tuner(tmp_path, make_hypermodel(QUICK)), epochs=1)
    # The same teacher, built again: the search goes on, and has nothing left to do.
    again = make_tuner(tmp_path, make_hypermodel(QUICK))
    assert statuses(search(again, epochs=1)) == ["COMPLETED"] * 2
    tuner = make_tuner(tmp_path, make_hypermodel(QUICK, **changes()), max_trials=3)
    with pytest.raises(FatalValueError, match=f"Received {name}"):
        search(tuner)


def test_a_trial_weighs_positions_as_the_pair_says():
    def weigh(logits):
        return keras.ops.sigmoid(logits[:, :1, None]) * np.ones((1, 4, 4), "float32")

    pair = FeaturePair("features", "features", position_weights=weigh)
    distiller = make_hypermodel(feature_pairs=pair).build(keras_tuner.HyperParameters())
    assert distiller.feature_pairs[0].position_weights is weigh


@pytest.mark.slow
def test_without_the_extra_the_package_works_and_the_tuner_says_what_to_install():
    code = (
        "import sys; sys.modules['keras_tuner'] = None\n"
        "import keras_ktan\n"
        "try:\n    import keras_ktan.tuner\n"
        "except ImportError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'Install it with `pip install "keras-ktan[tuner]"`' in run.stdout


def test_a_missing_tensorboard_is_said_before_every_trial_fails(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ImportError, match=r"tensorboard .* `pip install \"keras-ktan\[tuner\]\"`"):
        make_hypermodel()


# What a search gives.


@pytest.mark.parametrize(
    ("kind", "space", "arguments", "trials"),
    [
        pytest.param(keras_tuner.RandomSearch, FIXED, {}, 2, marks=pytest.mark.slow),
        pytest.param(
            keras_tuner.BayesianOptimization,
            QUICK,
            {"max_trials": 3, "num_initial_points": 2},
            3,
            marks=pytest.mark.long,
        ),
        # 2 trials with 1 epoch, the better one goes on to 2 epochs; 2 trials with 2 epochs.
        pytest.param(
            keras_tuner.Hyperband,
            QUICK,
            {"max_epochs": 2, "factor": 2},
            5,
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_best_student_is_the_one_that_scored_best(kind, space, arguments, trials, tmp_path):
    teacher = image_model(24, "teacher", seed=1)
    before = snapshot(teacher)
    hypermodel = make_hypermodel(space, teacher=teacher)
    tuner = search(make_tuner(tmp_path, hypermodel, kind, **arguments))
    assert statuses(tuner) == ["COMPLETED"] * trials
    student = best_student(tuner)
    assert type(student) is type(image_model(2, "other")) and student.name == "student"
    images, labels = image_data(40, seed=1)
    answers = np.argmax(student.predict(images, verbose=0), axis=-1)
    scores = [trial.score for trial in tuner.oracle.trials.values()]
    np.testing.assert_allclose(np.mean(answers == labels), max(scores), rtol=1e-6)
    assert_same(before, snapshot(teacher))


def test_trials_do_not_store_the_teacher(tmp_path):
    teacher = image_model(24, "teacher", seed=1)
    hypermodel = make_hypermodel(teacher=teacher)
    search(make_tuner(tmp_path, hypermodel, max_trials=1), epochs=1)
    (path,) = tmp_path.rglob("*.weights.h5")
    stored = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: stored.append(item) if hasattr(item, "shape") else None)
        count = sum(int(np.prod(item.shape)) for item in stored)
    distiller = hypermodel.build(keras_tuner.HyperParameters())
    networks = (
        distiller.student.variables
        + [v for layer in distiller.teacher_to_student_layers for v in layer.variables]
        + [v for layer in distiller.discriminators for v in layer.variables]
        + distiller.optimizer.variables
    )
    # And the number of steps, and a digest that says which teacher it was.
    extra = 1 + len(teacher_digest(teacher))
    assert count == extra + sum(int(np.prod(variable.shape)) for variable in networks)
    largest = max(teacher.variables, key=lambda v: int(np.prod(v.shape)))
    assert count < int(np.prod(largest.shape)) == 3 * 3 * 24 * 24


@pytest.mark.slow
def test_a_trial_goes_on_where_it_was_stored(tmp_path):
    hypermodel, path = make_hypermodel(), tmp_path / "trial.weights.h5"
    images, labels = image_data(16)

    def train(distiller):
        distiller.fit(images, labels, batch_size=8, shuffle=False, verbose=0)

    def everything(distiller):
        return snapshot(
            distiller.student,
            *distiller.teacher_to_student_layers,
            *distiller.discriminators,
            distiller.optimizer,
        )

    first, second = (hypermodel.build(keras_tuner.HyperParameters()) for _ in range(2))
    train(first)
    first.save_weights(path)
    assert_changed(everything(first), everything(second))
    second.load_weights(path)
    assert_same(everything(first), everything(second))
    train(first)
    train(second)
    assert_same(everything(first), everything(second))


@pytest.mark.long
def test_a_search_goes_on_after_an_error_of_the_user_was_mended(tmp_path):
    built, broken = [], True

    def build_student(hp):
        built.append(hp.values.get("student_loss_weight"))
        if broken and len(built) == 5:  # two at construction, the third trial
            raise AttributeError("a slip in build_student")
        return image_model(2, "student")

    tuner = make_tuner(tmp_path, make_hypermodel(QUICK, build_student=build_student), max_trials=4)
    with pytest.raises(FatalRuntimeError, match="build_student ended.*AttributeError: a slip"):
        search(tuner, epochs=1)
    finished = {path: path.read_bytes() for path in tmp_path.rglob("trial_[01]/trial.json")}
    assert len(finished) == 2
    assert {json.loads(text)["status"] for text in finished.values()} == {"COMPLETED"}

    begun, broken = len(built), False
    tuner = make_tuner(tmp_path, make_hypermodel(QUICK, build_student=build_student), max_trials=4)
    search(tuner, epochs=1)
    assert statuses(tuner) == ["COMPLETED"] * 4
    assert len(built) == begun + 1 + 2  # one at construction, and the two trials that were left
    assert {path: path.read_bytes() for path in finished} == finished
    trials = tuner.oracle.trials.values()
    assert len({trial.hyperparameters.get("student_loss_weight") for trial in trials}) == 4


def diverging_first(compiled):
    """Compile arguments whose first trial diverges; the first call is the tuner's own."""

    def arguments(hp):
        compiled.append(hp)
        return compile_arguments(rate=1e30 if len(compiled) == 2 else 0.05)

    return arguments


@pytest.mark.slow
def test_a_trial_that_diverges_is_failed_and_the_search_goes_on(tmp_path):
    hypermodel = make_hypermodel(QUICK, compile_arguments=diverging_first([]))
    tuner = search(make_tuner(tmp_path, hypermodel, max_trials=3))
    assert statuses(tuner) == ["FAILED", "COMPLETED", "COMPLETED"]
    assert "FailedTrialError: The training diverged" in tuner.oracle.trials["0"].message
    assert not list(tmp_path.rglob("trial_0/*.weights.h5"))
    assert all(np.all(np.isfinite(values)) for values in snapshot(best_student(tuner)))


def test_an_objective_that_is_not_a_number_fails_a_trial_with_a_finite_loss(tmp_path):
    def undefined(y_true, y_pred):
        return keras.ops.mean(y_pred, axis=-1) * float("nan")

    hypermodel = make_hypermodel(
        QUICK, compile_arguments=lambda hp: {**compile_arguments(), "metrics": [undefined]}
    )
    objective = keras_tuner.Objective("val_undefined", "max")
    tuner = search(make_tuner(tmp_path, hypermodel, objective=objective))
    assert statuses(tuner) == ["FAILED", "FAILED"]
    with pytest.raises(ValueError) as caught:
        best_student(tuner)
    assert_three_parts(caught.value, "'val_undefined': nan", "at least one", "mend")


class RaiseInFit(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        raise self.error


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        FloatingPointError("student_loss is nan"),
        MemoryError("no more"),
        RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
        FailedTrialError("too slow"),
    ],
)
def test_these_errors_in_training_fail_one_trial(error, tmp_path):
    tuner = make_tuner(tmp_path, make_hypermodel(QUICK), max_trials=1)
    search(tuner, epochs=1, callbacks=[RaiseInFit(error)])
    assert statuses(tuner) == ["FAILED"]
    assert str(error) in tuner.oracle.trials["0"].message


@pytest.mark.parametrize("error", [ValueError("a slip"), ZeroDivisionError("a slip")])
def test_other_errors_in_training_end_the_search(error, tmp_path):
    tuner = make_tuner(tmp_path, make_hypermodel(QUICK))
    with pytest.raises(keras_tuner.errors.FatalError, match="in fit ended the search.*a slip"):
        search(tuner, epochs=1, callbacks=[RaiseInFit(error)])


@pytest.mark.parametrize("space", ["fixed", "drawn", "labels only"])
def test_what_a_hypermodel_built_comes_back_from_its_file_as_a_distiller(space, tmp_path):
    """KerasTuner's own retraining and a `ModelCheckpoint` write such files."""
    space = {"fixed": FIXED, "drawn": {}, "labels only": {**FIXED, **LABELS_ONLY}}[space]
    distiller = make_hypermodel(space).build(keras_tuner.HyperParameters())
    images, labels = image_data(8)
    distiller.train_on_batch(images, labels)
    distiller.save(tmp_path / "trial.keras")
    loaded = keras.saving.load_model(tmp_path / "trial.keras")
    assert type(loaded) is KTANDistiller
    logs = [model.train_on_batch(images, labels, return_dict=True) for model in (distiller, loaded)]
    assert logs[0].keys() == logs[1].keys()
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-5, err_msg=name)
    assert_same(snapshot(distiller.student), snapshot(loaded.student))
