"""State that goes in and comes out as values, as JAX wants it."""

import keras


class StatelessValues:
    """The values of all variables while a step goes through its stages.

    Keras variables cannot be assigned inside a traced function. Each stage runs in a
    `StatelessScope` over the values as they are, and what it assigned is kept here.

    Args:
        groups: Pairs of a list of variables and a list of their values.
    """

    def __init__(self, *groups):
        self.variables = [variable for variables, _ in groups for variable in variables]
        self.values = [value for _, values in groups for value in values]
        self._places = {id(variable): place for place, variable in enumerate(self.variables)}

    def get(self, variables):
        """The present values of some variables."""
        return [self.values[self._places[id(variable)]] for variable in variables]

    def put(self, variables, values):
        """Replace the values of some variables."""
        for variable, value in zip(variables, values, strict=True):
            self.values[self._places[id(variable)]] = value

    def run(self, function, *arguments, variables=(), values=()):
        """Call a function in a scope over these values.

        Args:
            function: What to call.
            *arguments: Its arguments.
            variables: Variables that take other values, those being differentiated.
            values: These values.

        Returns:
            A tuple of what the function returned and the new values of all variables. Keep
            them with `values = ...` outside of the differentiated function.
        """
        mapping = dict(zip(map(id, self.variables), self.values, strict=True))
        mapping.update(zip(map(id, variables), values, strict=True))
        state_mapping = [(variable, mapping[id(variable)]) for variable in self.variables]
        with keras.StatelessScope(state_mapping=state_mapping, collect_losses=True) as scope:
            result = function(*arguments)
        return result, [scope.get_current_value(variable) for variable in self.variables]

    def keep(self, values, but=()):
        """Take over what a stage assigned.

        Args:
            values: As `run` returned them.
            but: Variables that were differentiated; they keep their own values.
        """
        own = self.get(but)
        self.values = list(values)
        self.put(but, own)
