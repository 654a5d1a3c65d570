"""`fit` that stops at a divergence and feeds what a `TeacherCache` kept."""

import keras

from keras_ktan.cached_dataset import CachedDataset
from keras_ktan.divergence_guard import DivergenceGuard


class GuardedFit:
    """The `fit` of a `KTANDistiller`."""

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        **arguments,
    ):
        """Train the student; all arguments are those of `keras.Model.fit`.

        Args:
            x: As in `keras.Model.fit`, or what `TeacherCache.dataset` returned.
            y: As in `keras.Model.fit`.
            batch_size: As in `keras.Model.fit`.
            epochs: As in `keras.Model.fit`.
            verbose: As in `keras.Model.fit`.
            callbacks: As in `keras.Model.fit`.
            validation_split: As in `keras.Model.fit`.
            validation_data: As in `keras.Model.fit`; plain data, also beside a cache.
            shuffle: As in `keras.Model.fit`. A cache's data set shuffles itself.
            **arguments: The others of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If a cache's data set is another teacher's or lacks a map or comes with
                `steps_per_epoch`, or if the student begins with weights that are not finite.
            FloatingPointError: If a loss becomes NaN or infinite. The error names the term; the
                distiller is as it was at the end of the last good epoch, or up to 1,000 steps
                before in a long one.
        """
        own = [DivergenceGuard()]
        if isinstance(x, CachedDataset) and self.compiled:
            if arguments.get("steps_per_epoch") is not None:
                raise ValueError(
                    f"Received steps_per_epoch={arguments['steps_per_epoch']} with a data set of a "
                    "TeacherCache. Expected None, because it draws a new order for each pass over "
                    "the images. Leave it out, and use fewer or more `epochs`."
                )
            x.prepare_for(self)
            shuffle = False
            own.append(keras.callbacks.LambdaCallback(on_epoch_begin=x.begin_epoch))
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            [*own, *_as_callbacks(callbacks)],
            validation_split,
            validation_data,
            shuffle,
            **arguments,
        )


def _as_callbacks(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return keras.tree.flatten(callbacks or [])
