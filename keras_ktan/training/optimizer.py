"""One optimizer object that holds each network's own."""

import contextlib
import types

import keras

NETWORKS = ("student", "t2s", "discriminator")


def make_optimizer(objectives, optimizer, t2s_optimizer, discriminator_optimizer, scale_loss):
    """The optimizer of the networks that are trained, from what the user gave.

    Args:
        objectives: `Objectives`; they say which networks are trained.
        optimizer: The student's: name, config or `keras.optimizers.Optimizer`.
        t2s_optimizer: Likewise T2S's, or `None` for the default.
        discriminator_optimizer: Likewise the discriminators'.
        scale_loss: Whether to guard each against float16's underflow.

    Returns:
        A `DistillationOptimizer`.

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
    if objectives.trains_t2s:
        t2s = prepare(t2s_optimizer or keras.optimizers.Adam(3e-3))
    if objectives.uses_discriminator:
        discriminator = prepare(discriminator_optimizer or keras.optimizers.Adam(5e-5, beta_1=0.5))
    return DistillationOptimizer(prepare(optimizer), t2s, discriminator)


def _setting(name):
    """A setting that every optimizer of Keras has; here it is the student's."""

    def inner(self):
        student = vars(self).get("student")
        if isinstance(student, keras.optimizers.LossScaleOptimizer):
            student = student.inner_optimizer
        return None if "_is_building" in vars(self) else student

    def read(self):
        optimizer = inner(self)
        if optimizer is None:
            return vars(self).get("_defaults", {}).get(name)
        return getattr(optimizer, name)

    def write(self, value):
        optimizer = inner(self)
        if optimizer is None:  # Keras's constructor, before the student's optimizer is here
            vars(self).setdefault("_defaults", {})[name] = value
        else:
            setattr(optimizer, name, value)

    return property(read, write)


@keras.saving.register_keras_serializable(package="keras_ktan")
class DistillationOptimizer(keras.optimizers.Optimizer):
    """The student's, T2S's and the discriminator's optimizers as one.

    Keras saves, restores and, on JAX, updates only `model.optimizer`. A second optimizer kept
    elsewhere would be lost. The three inside work on disjoint variables and know nothing
    of each other, so that clipping or weight decay of one never touches another.
    `keras.optimizers.MultiOptimizer` chooses by a variable's path, takes no optimizer that scales
    its loss, and scales one loss for all; here each network has a loss of its own.

    To callbacks this object is the student's optimizer: `learning_rate`, `iterations`, `clipnorm`
    and what else an optimizer has are the student's, to be read and to be set.

    Args:
        student: The student's `keras.optimizers.Optimizer`.
        t2s: T2S's optimizer, or `None` when T2S is not trained.
        discriminator: The discriminator's optimizer, or `None` when there is none.
        name: Optional name.

    Raises:
        ValueError: If one optimizer is given to two networks.
    """

    weight_decay = _setting("weight_decay")
    clipnorm = _setting("clipnorm")
    clipvalue = _setting("clipvalue")
    global_clipnorm = _setting("global_clipnorm")
    use_ema = _setting("use_ema")
    ema_momentum = _setting("ema_momentum")
    ema_overwrite_frequency = _setting("ema_overwrite_frequency")
    gradient_accumulation_steps = _setting("gradient_accumulation_steps")

    def __init__(self, student, t2s=None, discriminator=None, name="distillation_optimizer"):
        super().__init__(learning_rate=0.0, name=name)
        # From here on the settings are the student's; see `__getattr__`.
        self.student = student
        self.t2s = t2s
        self.discriminator = discriminator
        # In a namespace: as an attribute, Keras would track the list and save it.
        self._groups = types.SimpleNamespace(variables=None)
        if len({id(optimizer) for optimizer in self._present()}) < len(self._present()):
            raise ValueError(
                "Received one optimizer object for two networks. Expected an object for each, "
                "because each keeps the state of its own weights. Make a second one, for example "
                "with `type(optimizer).from_config(optimizer.get_config())`."
            )

    def __getattr__(self, name):
        # Only for what this object has not: what an optimizer of the student's kind has besides.
        if name.startswith("__") or "student" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.student, name)

    def __setattr__(self, name, value):
        student = vars(self).get("student")
        own = name in vars(self) or hasattr(type(self), name)
        if student is not None and not own and hasattr(student, name):
            setattr(student, name, value)
            return
        super().__setattr__(name, value)

    @contextlib.contextmanager
    def _as_itself(self):
        """While Keras builds this object: it keeps no averages and accumulates nothing itself."""
        vars(self)["_is_building"] = True
        try:
            yield
        finally:
            del vars(self)["_is_building"]

    def _present(self):
        optimizers = (getattr(self, network) for network in NETWORKS)
        return [optimizer for optimizer in optimizers if optimizer is not None]

    def build(self, variables, t2s_variables=(), discriminator_variables=()):
        """Make each network's slots, each on its own variables.

        Args:
            variables: The student's trainable variables.
            t2s_variables: T2S's.
            discriminator_variables: The discriminators'.
        """
        if self.built:
            return
        groups = (variables, t2s_variables, discriminator_variables)
        everything, kept = [], []
        for network, group in zip(NETWORKS, groups, strict=True):
            optimizer = getattr(self, network)
            if optimizer is None:
                group = ()
            elif not optimizer.built:
                optimizer.build(list(group))
            everything.extend(group)
            kept.append(tuple(group))
        self._groups.variables = kept
        with self._as_itself():
            super().build(everything)

    def variables_of(self, network):
        """The variables of one of `NETWORKS`, as `build` got them: a list that no step rebuilds."""
        return self._groups.variables[NETWORKS.index(network)]

    def split_variables(self):
        """The variables of each network, three lists, as `build` got them."""
        return [list(group) for group in self._groups.variables]

    def split(self, values):
        """Cut a list over all networks' variables into one list a network.

        Args:
            values: List with one entry per variable, in the order of `build`.

        Returns:
            Three lists.
        """
        values, parts = list(values), []
        for group in self._groups.variables:
            parts.append(values[: len(group)])
            values = values[len(group) :]
        return parts

    def apply(self, grads, trainable_variables=None):
        """One step of every network.

        Args:
            grads: One gradient per variable, in the order of `build`.
            trainable_variables: The variables; `None`: those of `build`.
        """
        groups = self._groups.variables
        if trainable_variables is not None:
            groups = self.split(trainable_variables)
        for network, gradients, own in zip(NETWORKS, self.split(grads), groups, strict=True):
            optimizer = getattr(self, network)
            if optimizer is not None and gradients:
                optimizer.apply(gradients, list(own))

    def scale_loss(self, loss):
        """The student's scaling; the other networks scale their own losses."""
        return self.student.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Let every network's moving averages overwrite its own weights."""
        for network, own in zip(NETWORKS, self._groups.variables, strict=True):
            optimizer = getattr(self, network)
            if optimizer is not None:
                optimizer.finalize_variable_values(list(own))

    @property
    def variables(self):
        return [variable for optimizer in self._present() for variable in optimizer.variables]

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
            **{network: serialize(getattr(self, network)) for network in NETWORKS},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for network in NETWORKS:
            config[network] = keras.saving.deserialize_keras_object(
                config[network], custom_objects=custom_objects
            )
        return cls(**config)
