"""The one forward pass of each model in a step."""

import contextlib

import keras
from keras import ops

from keras_ktan.introspection.augmentation import find_augmentation
from keras_ktan.introspection.feature_tap import FeatureTap, Forward
from keras_ktan.introspection.model_digest import teacher_digest
from keras_ktan.introspection.model_inputs import input_names, select_inputs, validate_order
from keras_ktan.training.padding import meeting_map
from keras_ktan.utils.cached_batch import batch_key, key_of, mask_key, require_maps, unpack


class ForwardPasses:
    """Runs the student and then the teacher on the same batch.

    The student comes first: what augmentation layers at its head make of the batch is what the
    teacher sees, too.

    Args:
        pairing: The `Pairing` of the two models.
        pairs: The `ConnectedPair`s whose maps are wanted.
        uses_teacher: Whether any term needs the teacher.
        uses_teacher_outputs: Whether any term needs its outputs.

    Raises:
        ValueError: If the student augments its images where the teacher cannot see it.
    """

    def __init__(self, pairing, pairs, uses_teacher, uses_teacher_outputs):
        self._pairs = pairs
        self._uses_teacher = uses_teacher
        self._uses_teacher_outputs = uses_teacher_outputs
        self._teacher_structure = pairing.teacher_structure
        self._teacher_paths = [pair.pair.teacher_layer_name for pair in pairs]
        student_paths = [pair.pair.student_layer_name for pair in pairs]
        # Dict from the place of an input to the path of the last layer that augments it.
        self._augmentation = find_augmentation(pairing.student) if uses_teacher else {}
        self._teacher_key = None  # of the batches that hold this teacher's outputs
        self._teacher_tap = FeatureTap(pairing.teacher, self._teacher_paths, "teacher")
        self._student_tap = FeatureTap(
            pairing.student, [*student_paths, *self._augmentation.values()], "student"
        )

    @contextlib.contextmanager
    def attached(self):
        """Keep both taps attached; see `FeatureTap.attached`."""
        with self._student_tap.attached(), self._teacher_tap.attached():
            yield

    def student(self, inputs, training=True):
        """Run the student.

        Args:
            inputs: The batch of inputs.
            training: Passed on to the student.

        Returns:
            A `Forward`; its inputs are those that the teacher is to see, its maps and masks have
            the forms in which they meet the teacher's.

        Raises:
            ValueError: If the teacher would take the inputs in another order.
        """
        if self._uses_teacher:
            validate_order(inputs, self._teacher_tap.model, self._student_tap.model)
        own = select_inputs(self._student_tap.model, inputs)
        forward = self._student_tap.forward(own, training=training)
        count = len(self._pairs)
        meeting = [
            meeting_map(pair, "student", features, mask)
            for pair, features, mask in zip(
                self._pairs, forward.maps[:count], forward.map_masks[:count], strict=True
            )
        ]
        return forward._replace(
            maps=[features for features, _ in meeting],
            map_masks=[mask for _, mask in meeting],
            inputs=self._augmented(inputs, own, forward.maps[count:]),
        )

    def _augmented(self, inputs, own, augmented):
        """The batch with what the student made of its own inputs."""
        names = input_names(self._student_tap.model)
        if isinstance(inputs, dict) and names:
            changed = {
                names[place]: ops.stop_gradient(tensor)
                for place, tensor in zip(self._augmentation, augmented, strict=True)
            }
            return {**inputs, **changed}
        flat = keras.tree.flatten(own)
        for place, tensor in zip(self._augmentation, augmented, strict=True):
            flat[place] = ops.stop_gradient(tensor)
        return keras.tree.pack_sequence_as(own, flat)

    def teacher(self, inputs, outputs=None, maps=None):
        """Run the teacher; not for a batch that holds its results, nor where no term needs it.

        Args:
            inputs: The inputs of what `student` returned.
            outputs: Of a batch from a `TeacherCache`: dict from positions, as text, among the
                teacher's flattened outputs to tensors.
            maps: Of such a batch: dict from paths of the teacher's layers to tensors.

        Returns:
            A `Forward`, of `None` and empty lists when no term needs the teacher.
        """
        if not self._uses_teacher:
            return Forward(None, [], [], [])
        if outputs is not None:
            return self._cached_teacher(outputs, maps)
        inputs = select_inputs(self._teacher_tap.model, inputs)
        forward = self._teacher_tap.forward(inputs, training=False)
        stop = ops.stop_gradient
        return forward._replace(
            outputs=keras.tree.map_structure(stop, forward.outputs),
            maps=[stop(feature) for feature in forward.maps],
        )

    def validate_cached(self, x):
        """Check, while a step is traced, that a batch of a cache is one for these models.

        Before the student runs: its running means would move otherwise.

        Args:
            x: The inputs of a batch, be it plain or a cache's.

        Raises:
            ValueError: If another teacher made what it holds, if the student augments the
                images, or if a map is missing.
        """
        key = key_of(x)
        if key is not None:
            self._validate(key, unpack(x)[2])

    def validate_cache(self, teacher, paths):
        """Check before a training what `validate_cached` checks for a batch.

        Args:
            teacher: Digest of the teacher that filled the cache.
            paths: Paths of the teacher's layers whose maps the cache holds.

        Raises:
            ValueError: As `validate_cached`.
        """
        self._teacher_key = None  # the teacher may be another by now
        self._validate(batch_key(teacher), paths)

    def _validate(self, key, paths):
        if not self._uses_teacher:
            return
        if self._augmentation:
            raise ValueError(
                "Received data of a TeacherCache for a student with augmentation layers "
                f"{list(self._augmentation.values())}. Expected none, because the cache holds what "
                "the teacher makes of the images as they are. Remove them from the student and "
                "write them as `views` of the cache."
            )
        if key != self._teacher_key:
            # The weights may have changed since they were looked at.
            self._teacher_key = batch_key(teacher_digest(self._teacher_tap.model))
        if key != self._teacher_key:
            raise ValueError(
                f"The cache was filled by a teacher with other weights or layers than "
                f"'{self._teacher_tap.model.name}' has. Expected the distiller's own teacher as it "
                "is now. Fill a cache from this distiller in a new directory."
            )
        require_maps(self._teacher_paths, paths)

    def _cached_teacher(self, outputs, maps):
        structured, output_masks = None, []
        if self._uses_teacher_outputs:
            count = len(keras.tree.flatten(self._teacher_structure))
            flat = [_as_computed(outputs[str(place)]) for place in range(count)]
            structured = keras.tree.pack_sequence_as(self._teacher_structure, flat)
            output_masks = [_as_mask(outputs.get(mask_key(place))) for place in range(count)]
        kept = [_as_computed(maps[path]) for path in self._teacher_paths]
        map_masks = [_as_mask(maps.get(mask_key(path))) for path in self._teacher_paths]
        return Forward(structured, kept, map_masks, output_masks)


def _as_mask(tensor):
    return None if tensor is None else ops.cast(tensor, "bool")


def _as_computed(tensor):
    """A tensor from the cache; half precision is only how it was kept."""
    tensor = ops.convert_to_tensor(tensor)
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
        tensor = ops.cast(tensor, keras.config.floatx())
    return ops.stop_gradient(tensor)
