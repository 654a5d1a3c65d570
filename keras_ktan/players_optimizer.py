"""One optimizer object that holds each player's own."""

import keras

PLAYERS = ("student", "t2s", "discriminator")


def make_players_optimizer(
    objectives, optimizer, t2s_optimizer, discriminator_optimizer, scale_loss
):
    """The optimizer of those who play, from what the user gave.

    Args:
        objectives: `Objectives`; they say who plays.
        optimizer: The student's: name, config or `keras.optimizers.Optimizer`.
        t2s_optimizer: Likewise T2S's, or `None` for the default.
        discriminator_optimizer: Likewise the discriminators'.
        scale_loss: Whether to guard each against float16's underflow.

    Returns:
        A `PlayersOptimizer`.

    Raises:
        ValueError: If the student has none.
    """
    if optimizer is None:
        raise ValueError(
            "Received optimizer=None. Expected the student's optimizer. Write "
            "`optimizer='adam'`, for example."
        )

    def prepare(given):
        given = keras.optimizers.get(given)
        if scale_loss and not isinstance(given, keras.optimizers.LossScaleOptimizer):
            given = keras.optimizers.LossScaleOptimizer(given)
        return given

    t2s = discriminator = None
    if objectives.uses_maps:
        t2s = prepare(t2s_optimizer or keras.optimizers.Adam(3e-3))
    if objectives.uses_discriminator:
        discriminator = prepare(discriminator_optimizer or keras.optimizers.Adam(5e-5, beta_1=0.5))
    return PlayersOptimizer(prepare(optimizer), t2s, discriminator)


@keras.saving.register_keras_serializable(package="keras_ktan")
class PlayersOptimizer(keras.optimizers.Optimizer):
    """The student's, T2S's and the discriminator's optimizers as one.

    Keras saves, restores and, on JAX, updates only `model.optimizer`. A second optimizer kept
    elsewhere would be lost. The three inside work on disjoint variables and know nothing
    of each other, so that clipping or weight decay of one never touches another.

    To callbacks this object is the student's optimizer: `learning_rate` and `iterations`
    are the student's.

    Args:
        student: The student's `keras.optimizers.Optimizer`.
        t2s: T2S's optimizer, or `None` when T2S does not play.
        discriminator: The discriminator's optimizer, or `None` when it does not play.
        name: Optional name.

    Raises:
        ValueError: If one optimizer is given to two players.
    """

    def __init__(self, student, t2s=None, discriminator=None, name="players_optimizer"):
        super().__init__(learning_rate=0.0, name=name)
        self.student = student
        self.t2s = t2s
        self.discriminator = discriminator
        playing = self._playing()
        if len({id(optimizer) for optimizer in playing}) < len(playing):
            raise ValueError(
                "Received one optimizer object for two players. Expected an object for each, "
                "because each keeps the state of its own weights. Make a second one, for example "
                "with `type(optimizer).from_config(optimizer.get_config())`."
            )

    def _playing(self):
        optimizers = (getattr(self, player) for player in PLAYERS)
        return [optimizer for optimizer in optimizers if optimizer is not None]

    def build(self, variables, t2s_variables=(), discriminator_variables=()):
        """Make each player's slots, each on its own variables.

        Args:
            variables: The student's trainable variables.
            t2s_variables: T2S's.
            discriminator_variables: The discriminators'.
        """
        if self.built:
            return
        groups = (variables, t2s_variables, discriminator_variables)
        everything = []
        self._sizes = []
        for player, group in zip(PLAYERS, groups, strict=True):
            optimizer = getattr(self, player)
            if optimizer is None:
                group = ()
            elif not optimizer.built:
                optimizer.build(list(group))
            everything.extend(group)
            self._sizes.append(len(group))
        super().build(everything)

    def split(self, values):
        """Cut a list over all players' variables into one list a player.

        Args:
            values: List with one entry per variable, in the order of `build`.

        Returns:
            Three lists.
        """
        first, second = self._sizes[0], self._sizes[0] + self._sizes[1]
        values = list(values)
        return values[:first], values[first:second], values[second:]

    def apply(self, grads, trainable_variables=None):
        """One step of every player.

        Args:
            grads: One gradient per variable, in the order of `build`.
            trainable_variables: The variables; `None`: those of `build`.
        """
        variables = (
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        for player, group, own in zip(
            PLAYERS, self.split(grads), self.split(variables), strict=True
        ):
            optimizer = getattr(self, player)
            if optimizer is not None and group:
                optimizer.apply(group, own)

    def scale_loss(self, loss):
        """The student's scaling; the other players scale their own losses."""
        return self.student.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Let every player's moving averages overwrite its own weights."""
        for optimizer, own in zip(
            (getattr(self, player) for player in PLAYERS),
            self.split(self._trainable_variables),
            strict=True,
        ):
            if optimizer is not None:
                optimizer.finalize_variable_values(own)

    @property
    def variables(self):
        return [variable for optimizer in self._playing() for variable in optimizer.variables]

    @property
    def learning_rate(self):
        return self.student.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.student.learning_rate = learning_rate

    @property
    def iterations(self):
        return self.student.iterations

    def save_own_variables(self, store):
        """Nothing: Keras visits the three optimizers inside and saves each."""

    def load_own_variables(self, store):
        """Nothing: Keras visits the three optimizers inside and loads each."""

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            **{player: serialize(getattr(self, player)) for player in PLAYERS},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for player in PLAYERS:
            config[player] = keras.saving.deserialize_keras_object(
                config[player], custom_objects=custom_objects
            )
        return cls(**config)
