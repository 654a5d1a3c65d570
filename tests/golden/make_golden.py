"""Write the golden file: `python tests/golden/make_golden.py`, on TensorFlow.

Until 0.1.0 is released, the commit that changes what a saved distiller holds makes it anew. After
that the file stays, and later versions must load it.
"""

import pathlib

import keras
import numpy as np

from keras_ktan import FeaturePair, KTANDistiller, OutputPair, TeacherToStudent

FOLDER = pathlib.Path(__file__).parent


def classifier(filters, name, seed):
    """A classifier of small images with a map to match."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 1), name="image")
    hidden = keras.layers.Conv2D(filters, 3, padding="same", name="stem")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.ReLU(name="low")(hidden)
    hidden = keras.layers.Conv2D(filters, 3, 2, "same", activation="relu", name="high")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden), name=name)


def data():
    """Images and labels that follow from arithmetic alone."""
    images = np.sin(np.arange(8 * 36, dtype="float64")).reshape(8, 6, 6, 1).astype("float32")
    return images, np.arange(8) % 3


def make_distiller():
    """A compiled distiller with every kind of thing that is saved."""
    teacher, student = classifier(6, "teacher", 1), classifier(3, "student", 2)
    keras.utils.set_random_seed(3)
    learned = TeacherToStudent("student_head", name="learned")
    distiller = KTANDistiller(
        teacher,
        student,
        feature_pairs=[
            FeaturePair("low", "low", weight=0.5),
            FeaturePair("high", "high", teacher_to_student=learned),
        ],
        output_pairs=OutputPair(kind="softmax", weight=2.0),
        temperature=3.0,
    )
    distiller.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        logits_loss_weight=keras.optimizers.schedules.CosineDecay(1.0, 100),
        feature_loss="normalized_mse",
        adversarial_loss_weight=0.1,
        jit_compile=False,
    )
    return distiller


if __name__ == "__main__":
    distiller = make_distiller()
    images, labels = data()
    distiller.fit(images, labels, batch_size=4, epochs=2, shuffle=False, verbose=0)
    distiller.save(FOLDER / "golden.keras")
    outputs = distiller.predict(images, verbose=0)
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    np.savez(
        FOLDER / "golden.npz",
        outputs=outputs,
        names=sorted(logs),
        logs=[logs[n] for n in sorted(logs)],
    )
