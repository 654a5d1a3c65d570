"""What a compiled training step consists of: numbers without noise."""

import keras

from keras_ktan import KTANDistiller


def jax_program(model, batch):
    """Numbers of tensors that enter and leave a compiled step on JAX, and of its instructions.

    Args:
        model: A compiled model.
        batch: Tuple of arrays, images and labels.

    Returns:
        Dict of `"arguments"`, `"results"` and `"operations"`.
    """
    import jax

    model.train_on_batch(*batch)  # makes the metrics' variables
    groups = ("trainable_variables", "non_trainable_variables", None, "metrics_variables")
    groups = [model.optimizer.variables if n is None else getattr(model, n) for n in groups]
    state = tuple([variable.value for variable in group] for group in groups)
    if isinstance(model, KTANDistiller):
        try:
            from keras_ktan.training.steps.teacher_weights import BatchesWithTeacher
        except ImportError:
            pass  # before that, the teacher was a part of the state
        else:
            teacher = [variable.value for variable in model.teacher.variables]
            batch = next(BatchesWithTeacher(iter([batch]), teacher))
    lowered = jax.jit(model.train_step, donate_argnums=0, keep_unused=True).lower(state, batch)
    return {
        "arguments": len(jax.tree_util.tree_leaves(lowered.args_info)),
        "results": len(jax.tree_util.tree_leaves(lowered.out_info)),
        "operations": lowered.as_text().count(" = "),
    }


def program_of_step(model, batch):
    """The same on every backend, as far as it compiles steps.

    Args:
        model: A compiled model.
        batch: Tuple of arrays, images and labels.

    Returns:
        Dict from what is counted to its number; empty on torch, where Keras runs the step as it
        is.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return jax_program(model, batch)
    if backend == "tensorflow":
        from step_operations import operations_of_step

        return {"operations": operations_of_step(model, batch)}
    return {}


def describe_program(program):
    """`program_of_step`'s numbers in words."""
    return ", ".join(f"{number:,} {what}" for what, number in program.items())
