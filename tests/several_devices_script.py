"""The same small distillation on one device and on several, its numbers written to files.

`test_several_devices.py` starts this in processes of its own, because devices must be set up
before a backend first computes anything:

    several_devices_script.py replicas FOLDER                     TensorFlow, one process
    several_devices_script.py devices FOLDER                      JAX, one process
    several_devices_script.py processes FOLDER ADDRESS PROCESS    JAX, one of two processes
"""

import contextlib
import importlib.util
import pathlib
import sys

import keras
import numpy as np
from models import image_data, image_model, loss_from_logits, use_double_precision

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, OutputPair

use_double_precision()
BATCH_SIZE, STEPS = 4, 3
WEIGHTS_OFF = {
    "logits_loss_weight": 0.0,
    "feature_loss_weight": 0.0,
    "adversarial_loss_weight": 0.0,
}


def data(count):
    images, labels = image_data(count)
    return images, labels, np.linspace(0.2, 2.0, count).astype("float32")


def compile_arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.05),
        "loss": loss_from_logits(),
        "metrics": ["accuracy"],
        "weighted_metrics": ["accuracy"],
    }


def make_students(batch_norm=False):
    teacher = image_model(6, "teacher", batch_norm=batch_norm, seed=1)
    student = image_model(
        4, "student", batch_norm=batch_norm, regularizer=keras.regularizers.L2(1e-2), seed=2
    )
    return teacher, student


def make_distiller(noise_stddev=0.0, own_loss=False, run_eagerly=False):
    teacher, student = make_students()
    keras.utils.set_random_seed(3)
    discriminator = FeatureDiscriminator(filters=4, noise_stddev=noise_stddev)
    distiller = KTANDistiller(
        teacher,
        student,
        FeaturePair("features", "features", discriminator=discriminator),
        temperature=3.0,
        output_pairs=OutputPair(kind="softmax"),  # a loss of the student's own does not say it
    )
    arguments = compile_arguments()
    if own_loss:
        student.compile(**arguments)
        arguments = {"optimizer": keras.optimizers.SGD(0.05), "loss": None}
    distiller.compile(
        t2s_optimizer=keras.optimizers.SGD(0.02),
        discriminator_optimizer=keras.optimizers.SGD(0.02),
        logits_loss_weight=0.7,
        feature_loss_weight=2.0,
        adversarial_loss_weight=0.5,
        run_eagerly=run_eagerly,
        **arguments,
    )
    return distiller


class Numbers(dict):
    """What a run gave, by names that say where it comes from."""

    def add_weights(self, when, **models):
        for role, model in models.items():
            for index, variable in enumerate(model.variables):
                name = f"{when}: {role} {index:02} {variable.name}"
                self[name] = np.array(keras.ops.convert_to_numpy(variable))

    def add_players(self, when, distiller):
        self.add_weights(
            when,
            student=distiller.student,
            t2s=distiller.teacher_to_student_layers[0],
            discriminator=distiller.discriminators[0],
        )

    def add_logs(self, when, logs):
        for name, value in logs.items():
            self[f"{when}: {name}"] = np.ravel(np.array(value, "float32"))

    def fit(self, when, model, x, y=None, sample_weight=None, batch_size=None):
        history = model.fit(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            shuffle=False,
            verbose=0,
        )
        self.add_logs(when, history.history)

    def evaluate(self, when, model, x, y, sample_weight, batch_size=BATCH_SIZE):
        self.add_logs(
            when,
            model.evaluate(
                x,
                y,
                sample_weight=sample_weight,
                batch_size=batch_size,
                return_dict=True,
                verbose=0,
            ),
        )

    def write(self, folder, name):
        np.savez(pathlib.Path(folder) / f"{name}.npz", **self)


def distillation(own_loss):
    """Three steps, an evaluation whose last batch is uneven, and batches of 4 and 1."""
    numbers = Numbers()
    distiller = make_distiller(own_loss=own_loss)
    numbers.add_players("start", distiller)
    numbers.fit("fit", distiller, *data(STEPS * BATCH_SIZE), batch_size=BATCH_SIZE)
    numbers.add_players("end", distiller)
    numbers.evaluate("evaluate", distiller, *data(BATCH_SIZE + 3))
    if not own_loss:
        # Of the last batch, of one example, a second replica gets nothing.
        numbers.fit("small batch", distiller, *data(BATCH_SIZE + 1), batch_size=BATCH_SIZE)
    return numbers


def noisy_step():
    """One step in which every replica gets the very same images."""
    numbers = Numbers()
    images, labels, _ = data(BATCH_SIZE)
    distiller = make_distiller(noise_stddev=0.3, run_eagerly=True)
    numbers.add_logs("step", distiller.train_on_batch(images, labels, return_dict=True))
    return numbers


def without_distillation(distil):
    """The student alone and the student in a distiller that distils nothing."""
    numbers = Numbers()
    teacher, student = make_students(batch_norm=True)
    model = KTANDistiller(teacher, student) if distil else student
    model.compile(**compile_arguments(), **(WEIGHTS_OFF if distil else {}))
    uneven = data(2 * BATCH_SIZE + 3)
    numbers.fit("fit", model, *uneven, batch_size=BATCH_SIZE)
    numbers.add_weights("end", student=student)
    numbers.evaluate("evaluate", model, *uneven)
    if distil:
        del numbers["fit: student_loss"]  # a student alone has no such entry
    return numbers


def replicas(folder):
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # One strategy for all: those of one process would mix up their collective operations.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name, scope in (("one", contextlib.nullcontext), ("two", strategy.scope)):
        with scope():
            distillation(own_loss=False).write(folder, f"given_loss_{name}")
            distillation(own_loss=True).write(folder, f"own_loss_{name}")
            noisy_step().write(folder, f"noise_{name}")
    with strategy.scope():
        without_distillation(distil=False).write(folder, "student")
        without_distillation(distil=True).write(folder, "distiller")
        teacher, student = make_students()
        distiller = KTANDistiller(teacher, student)
    try:
        distiller.compile(**compile_arguments())
        message = "no error"
    except ValueError as error:
        message = str(error)
    (pathlib.Path(folder) / "outside.txt").write_text(message)


def distributed_game(distribution, process=0, processes=1):
    """Three steps from this process's arrays, three from a `tf.data.Dataset` that Keras cuts."""

    def share(array):
        rows = BATCH_SIZE // processes
        batches = np.reshape(array, (-1, processes, rows, *array.shape[1:]))
        return np.reshape(batches[:, process], (-1, *array.shape[1:]))

    keras.distribution.set_distribution(distribution)
    numbers = Numbers()
    distiller = make_distiller(noise_stddev=0.3)
    numbers.add_players("start", distiller)
    everything = data(STEPS * BATCH_SIZE)
    arrays = [share(array) for array in everything]
    batch_size = BATCH_SIZE // processes
    numbers.fit("fit arrays", distiller, *arrays, batch_size=batch_size)
    numbers.add_players("middle", distiller)
    if importlib.util.find_spec("tensorflow") is None:
        numbers.fit("fit again", distiller, *arrays, batch_size=batch_size)
    else:
        import tensorflow as tf

        if distribution is not None:
            distribution.auto_shard_dataset = True
        batches = tf.data.Dataset.from_tensor_slices(everything)
        numbers.fit("fit again", distiller, batches.batch(BATCH_SIZE, drop_remainder=True))
        if distribution is not None:
            distribution.auto_shard_dataset = False
    numbers.add_players("end", distiller)
    numbers.evaluate("evaluate", distiller, *arrays, batch_size=batch_size)
    keras.distribution.set_distribution(None)
    return numbers


def devices(folder):
    assert len(keras.distribution.list_devices()) == 2
    distributed_game(None).write(folder, "one")
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    distributed_game(distribution).write(folder, "two")


def processes(folder, address, process):
    keras.distribution.initialize(address, 2, int(process))
    assert len(keras.distribution.list_devices()) == 2
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    numbers = distributed_game(distribution, process=int(process), processes=2)
    numbers.write(folder, f"process_{process}")


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    {"replicas": replicas, "devices": devices, "processes": processes}[kind](*arguments)
