"""A distiller as a file: what is written of it, and how it comes back."""

import keras

from keras_ktan.feature_pair import FeaturePair


class SavedDistiller:
    """What `save` and `load_model` need of a distiller.

    The class it is mixed into has the arguments of its constructor as attributes, and keeps in
    its `_untracked` namespace as `compile_arguments` what `compile` was given, with the players'
    optimizers in place of what they were made from. As an attribute or property Keras would find
    that dict and save the optimizers a second way: it looks for state in all that `dir` shows.
    """

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        pairs, layers = None, []
        if self.feature_pairs is not None:
            pairs = [pair.to_references(layers) for pair in self.feature_pairs]
        return {
            "name": self.name,
            "teacher": serialize(self.teacher),
            "student": serialize(self.student),
            "feature_pairs": pairs,
            "pair_layers": [serialize(layer) for layer in layers],
            "temperature": self.temperature,
            "logits_output": self.logits_output,
            "logits_activation": self.logits_activation,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)

        def deserialize(value):
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        layers = [deserialize(layer) for layer in config.pop("pair_layers")]
        if config["feature_pairs"] is not None:
            config["feature_pairs"] = [
                FeaturePair.from_references(pair, layers, deserialize)
                for pair in config["feature_pairs"]
            ]
        for role in ("teacher", "student"):
            config[role] = deserialize(config[role])
        return cls(**config)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return {
            name: keras.saving.serialize_keras_object(value)
            for name, value in self._untracked.compile_arguments.items()
        }

    def compile_from_config(self, config):
        self.compile(
            **{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        )
