"""Who plays: the two models, what joins them, and which variables belong to whom."""


class Players:
    """The players of a distiller, their variables, and their summary.

    The class it is mixed into has a `student`, `teacher_to_student_layers`, `discriminators` and
    a `temperature`, and keeps in its `_untracked` namespace the `teacher` and the `pairing`.
    """

    @property
    def teacher(self):
        """The teacher. It is saved with the distiller and never trained by it."""
        return self._untracked.teacher

    @property
    def teacher_paths(self):
        """Paths of the teacher's layers that the pairs name, each once."""
        pairs = self._untracked.pairing.pairs
        return list(dict.fromkeys(pair.pair.teacher_layer_name for pair in pairs))

    @property
    def student_variables(self):
        """What the student's optimizer moves."""
        return self.student.trainable_variables

    @property
    def t2s_variables(self):
        """What T2S's optimizer moves."""
        return _variables(self.teacher_to_student_layers)

    @property
    def discriminator_variables(self):
        """What the discriminators' optimizer moves."""
        return _variables(self.discriminators)

    def summary(self, *args, print_fn=print, **kwargs):
        """Print who plays: both models' sizes, the pairs, their anchors and discriminators.

        Args:
            *args: Passed on to the student's `summary`.
            print_fn: Function that prints a line.
            **kwargs: Passed on to the student's `summary`.
        """
        print_fn(
            f"KTANDistiller '{self.name}': teacher '{self.teacher.name}' "
            f"({self.teacher.count_params():,} parameters), student '{self.student.name}' "
            f"({self.student.count_params():,} parameters)"
        )
        for line in self._untracked.pairing.describe():
            print_fn(line)
        print_fn(f"  temperature: {self.temperature:g}")
        self.student.summary(*args, print_fn=print_fn, **kwargs)


def _variables(layers):
    return [variable for layer in layers for variable in layer.trainable_variables]
