"""Stand between a layer and its callers for the length of one forward pass.

`keras.Model(model.inputs, layer.output)` cannot look into nested or subclassed
models. Replacing a layer's `call` for the length of one forward pass can, on
every backend and for every kind of model.
"""

import contextlib
import threading

import keras

# Over who comes to listen to a layer and who goes. Never held while a layer runs.
_lock = threading.Lock()


class _Intercepted:
    """What stands in a layer's `call` while somebody listens.

    Several listeners may hold one layer at a time: each replica of a
    `MirroredStrategy` traces in a thread of its own and they take turns in the
    middle of a forward pass, and a program may have threads of its own. A
    listener therefore hears only its own thread, and the layer gets its `call`
    back when the last listener has gone.
    """

    def __init__(self, layer, attribute):
        self.layer = layer
        self.attribute = attribute
        self.had_own = attribute in vars(layer)
        self.original = getattr(layer, attribute)
        # Never changed, only replaced: a call reads it without the lock.
        self.listeners = ()
        setattr(layer, attribute, self)

    def __call__(self, *args, **kwargs):
        call = self.original
        for thread, on_call in self.listeners:
            if thread == threading.get_ident():
                call = _chain(on_call, call)
        return call(*args, **kwargs)

    def remove(self, listener):
        self.listeners = tuple(other for other in self.listeners if other is not listener)
        if self.listeners or vars(self.layer).get(self.attribute) is not self:
            return  # somebody still listens, or put something else here
        if self.had_own:
            setattr(self.layer, self.attribute, self.original)
        else:
            delattr(self.layer, self.attribute)


def _chain(on_call, call):
    return lambda *args, **kwargs: on_call(call, args, kwargs)


def _call_attribute(layer):
    # A quantised layer runs `quantized_call` instead of `call`.
    # Operations between layers know no such mode.
    is_quantised = getattr(layer, "quantization_mode", None) is not None
    return "quantized_call" if is_quantised else "call"


def is_intercepted(layer):
    """Whether the calls of a layer, as it runs now, go through `intercept_calls`."""
    return isinstance(vars(layer).get(_call_attribute(layer)), _Intercepted)


@contextlib.contextmanager
def intercept_calls(hooks, method=None):
    """Route the calls of some layers through functions of ours.

    Args:
        hooks: A list of `(layer, on_call)`. `on_call(call, args, kwargs)` gets the
            layer's own call and its arguments and returns the layer's output.
        method: The name of another method of the layers to route instead.

    Yields:
        Nothing. On leaving, also by an exception, every layer is as it was.
    """
    entered = []
    try:
        for layer, on_call in hooks:
            attribute = method or _call_attribute(layer)
            listener = (threading.get_ident(), on_call)
            with _lock:
                stand_in = vars(layer).get(attribute)
                if not isinstance(stand_in, _Intercepted):
                    stand_in = _Intercepted(layer, attribute)
                stand_in.listeners = (*stand_in.listeners, listener)
            entered.append((stand_in, listener))
        yield
    finally:
        with _lock:
            for stand_in, listener in reversed(entered):
                stand_in.remove(listener)


class FirstSteps:
    """Lets the first step of each recurrent layer's cell be noted, and no other.

    How often a cell runs depends on the backend and on the length of the sequence.
    """

    def __init__(self):
        self._cells = []  # of the recurrent layers that run now: [cell, whether it ran]
        self._later = 0

    def run(self, layer, noted, unnoted):
        """Run a layer by one of two functions without arguments.

        Args:
            layer: The `keras.layers.Layer`.
            noted: Runs it and notes the call.
            unnoted: Runs it.

        Returns:
            What the function returned.
        """
        cell = next((entry for entry in self._cells if entry[0] is layer), None)
        if self._later or (cell and cell[1]):
            self._later += 1
            try:
                return unnoted()
            finally:
                self._later -= 1
        if cell:
            cell[1] = True
        if not isinstance(layer, keras.layers.RNN):
            return noted()
        self._cells.append([layer.cell, False])
        try:
            return noted()
        finally:
            self._cells.pop()
