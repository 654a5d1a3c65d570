"""Distil on several machines at once, on JAX. This is what you start on each of them.

Alone, on all devices of one machine:

    python examples/distill_multi_host.py

On two machines, the first of which the other reaches as `alpha`:

    alpha: python examples/distill_multi_host.py --coordinator alpha:12345 --processes 2 --process 0
    beta:  python examples/distill_multi_host.py --coordinator alpha:12345 --processes 2 --process 1

Every weight is on every device (`keras.distribution.DataParallel`), and each batch is cut between
them: a process brings its own rows of it and no others. The batch as a whole stays the same
however many devices there are, and so does the student, but for round-off. Only process 0 writes
files and shows the progress; each process prints at its end a digest of the student's weights,
which must be the same everywhere.

The teacher is trained by every process for itself, on one device, and then all take over the
weights that process 0 found. To let the others wait instead would save nothing, and a network
loses patience. To trust that all found the same would be wrong: machines of unlike kinds round
differently, and JAX refuses to spread weights over the devices on which the processes disagree.
Nor is a disk needed that all can read. A teacher of your own, loaded from a file, goes the same
method.

Keras asks two things of such a run. The devices must divide each batch, therefore the images that
do not fill a last one are left out (others in each epoch). And `predict` does not work across
processes, because none holds all rows: process 0 puts the weights into a model of its own.
"""

import argparse
import hashlib
import json
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "jax")

# First: it imports Keras without start-up lines.
from common.command_line import require
from common.four_methods import loss_weights

# isort: split
import keras
import numpy as np

from keras_ktan import FeaturePair, KTANDistiller
from keras_ktan_tasks.accuracy import accuracy
from keras_ktan_tasks.digits import (
    BATCH_SIZE,
    EPOCHS,
    STUDENT_FILTERS,
    TEACHER_FILTERS,
    load_data,
    make_classifier,
    make_optimizer,
    train_teacher,
)


class ShareOfBatches(keras.utils.PyDataset):
    """One process's rows of every batch.

    All processes draw the same order anew for each epoch, and cut each batch alike.

    Args:
        images: Array of all images.
        labels: Array of all labels.
        process: Int, which process this is.
        processes: Int, how many there are; it divides `BATCH_SIZE`.
    """

    def __init__(self, images, labels, process, processes):
        super().__init__()
        self.images, self.labels = images, labels
        self.process, self.processes = process, processes
        self.generator = np.random.default_rng(0)
        self.on_epoch_end()

    def __len__(self):
        return len(self.labels) // BATCH_SIZE

    def __getitem__(self, index):
        batch = self.order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        rows = np.split(batch, self.processes)[self.process]
        return self.images[rows], self.labels[rows]

    def on_epoch_end(self):
        self.order = self.generator.permutation(len(self.labels))


def agree_on_weights(weights):
    """Process 0's arrays, in every process."""
    import jax.experimental.multihost_utils

    shared = jax.experimental.multihost_utils.broadcast_one_to_all(weights)
    return [np.asarray(weight) for weight in shared]


def digest(weights):
    """A short name for some arrays; other values have another name."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in weights)).hexdigest()[:16]


def distil(teacher_weights, train, epochs, process, processes):
    """Train the student on all devices of all processes.

    Args:
        teacher_weights: List of arrays.
        train: A tuple `(images, labels)` of arrays, all of them.
        epochs: Int.
        process: Int, which process this is.
        processes: Int, how many there are.

    Returns:
        A tuple of the student's weights as arrays and the history.
    """
    # Each process brings its own rows; Keras need not cut them out of a data set.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    # The models are made from here on: their variables go where the distribution says.
    teacher = make_classifier(TEACHER_FILTERS, "teacher")
    teacher.set_weights(teacher_weights)
    keras.utils.set_random_seed(0)
    student = make_classifier(STUDENT_FILTERS, "student")
    batches = ShareOfBatches(*train, process, processes)
    distiller = KTANDistiller(teacher, student, FeaturePair("features", "features"))
    distiller.compile(
        optimizer=make_optimizer(epochs),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **loss_weights("KTAN", epochs * len(batches)),
    )
    history = distiller.fit(
        batches, epochs=epochs, shuffle=False, verbose=2 if process == 0 else 0
    ).history
    weights = student.get_weights()
    keras.distribution.set_distribution(None)
    return weights, history


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--coordinator", help="host:port of process 0, the same on all machines")
    parser.add_argument("--processes", type=int, default=1, help="how many in all (default 1)")
    parser.add_argument("--process", type=int, default=0, help="which this is, from 0 (default 0)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        help=f"epochs of the teacher and of the student (default {EPOCHS})",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/multi_host"),
        help="folder for the student and the numbers, on process 0's machine",
    )
    arguments = parser.parse_args()
    if keras.backend.backend() != "jax":
        parser.error(
            f"the backend is {keras.backend.backend()}; several machines need KERAS_BACKEND=jax"
        )
    if arguments.epochs < 1:
        parser.error("--epochs must be 1 or more")
    if not 0 <= arguments.process < arguments.processes:
        parser.error("--process must be from 0 to --processes minus 1")
    if arguments.processes > 1 and not arguments.coordinator:
        parser.error("more than one process needs --coordinator host:port")
    if arguments.process == 0:
        require(parser, arguments.output)
    return arguments


def main():
    arguments = parse_arguments()
    process, processes = arguments.process, arguments.processes
    if processes > 1:
        # Before anything is computed: JAX finds the devices of all machines now.
        keras.distribution.initialize(arguments.coordinator, processes, process)
    devices = len(keras.distribution.list_devices())
    if BATCH_SIZE % devices:
        raise SystemExit(f"{devices} devices cannot share batches of {BATCH_SIZE} images.")

    def show(text):
        if process == 0:
            print(text, flush=True)

    train, validation, test = load_data()
    show(f"{processes} processes, {devices} devices; teacher: {arguments.epochs} epoch(s) ...")
    teacher = train_teacher(train, arguments.epochs)
    show(f"teacher: {accuracy(teacher, validation):.2%} on the validation part; student ...")
    teacher_weights = agree_on_weights(teacher.get_weights())
    weights, history = distil(teacher_weights, train, arguments.epochs, process, processes)
    print(f"process {process}: student {digest(weights)}", flush=True)
    if process > 0:
        return

    student = make_classifier(STUDENT_FILTERS, "student")
    student.set_weights(weights)
    test_accuracy = accuracy(student, test)
    student.save(arguments.output / "student.keras")
    numbers = {
        "processes": processes,
        "devices": devices,
        "student": digest(weights),
        "test_accuracy": test_accuracy,
        "history": {name: [float(value) for value in values] for name, values in history.items()},
    }
    (arguments.output / "results.json").write_text(json.dumps(numbers, indent=1))
    show(f"student: {test_accuracy:.2%} on the test part; it is in {arguments.output}")


if __name__ == "__main__":
    main()
