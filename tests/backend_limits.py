"""What cannot hold on a backend, and why. The one place where a test is left out for that.

`conftest.py` skips these tests with the reason.
"""

NO_SAVED_MODEL = (
    "Keras on torch writes no SavedModel: `torch.export` refuses its account of the inputs"
)
DECODES = "the detection example decodes boxes with `tf.image`: its predictions are TensorFlow's"
READS_MORE = "Keras reads batches to build its logs that it does not train on; the test counts all"
TENSORFLOWS_GRAPH = "it is TensorFlow's graph that is looked at"
UNCOMPILED = "Keras on torch runs the step uncompiled unless asked, and one step a call"

# Test, by file and function (and case, where only one is meant; or file alone, where all are),
# to backends with the reason.
LIMITS = {
    "test_backends.py::test_the_step_is_traced_once_a_batch_size_over_epochs_and_schedules": {
        "torch": "Keras on torch runs the step uncompiled: there is no trace to count",
    },
    "test_backends.py::test_no_teacher_weight_is_a_constant_of_the_compiled_program": {
        "tensorflow": "a TensorFlow graph holds variables, not their values",
        "torch": "Keras on torch runs the step uncompiled: there is no program to look at",
    },
    "test_graph_order.py": {"jax": TENSORFLOWS_GRAPH, "torch": TENSORFLOWS_GRAPH},
    "test_weight_updates.py": {"jax": TENSORFLOWS_GRAPH, "torch": TENSORFLOWS_GRAPH},
    "test_distiller.py::test_every_way_to_run_gives_the_same_weights[xla]": {
        "torch": "`torch.compile` fails on our step: cannot determine truth value of Relational",
    },
    "test_distiller.py::test_every_way_to_run_gives_the_same_weights[steps_per_execution]": {
        "torch": "Keras on torch refuses a `steps_per_execution` above 1",
    },
    "test_divergence_guard.py::test_also_in_a_compiled_step_and_with_several_steps_in_one_call": {
        "torch": UNCOMPILED,
    },
    "test_teacher_cache.py::test_compiled_steps_give_what_steps_one_by_one_give": {
        "torch": UNCOMPILED,
    },
    "test_distiller.py::test_the_exported_student_runs_where_keras_ktan_is_not": {
        "torch": NO_SAVED_MODEL,
    },
    "test_distiller.py::test_exported_outputs_keep_their_names_whatever_their_order": {
        "torch": NO_SAVED_MODEL,
    },
    "test_documentation.py::test_docstring_example_runs[keras_ktan.export.export_student[0]]": {
        "torch": NO_SAVED_MODEL,
    },
    "test_detection_tasks.py"
    "::test_predictions_are_decoded_and_a_detector_comes_back_from_its_file": {
        "jax": DECODES,
        "torch": DECODES,
    },
    "test_example_detector_story.py": {"jax": DECODES, "torch": DECODES},
    "test_accuracy_benchmark.py::test_detectors_are_measured_by_their_average_precision": {
        "jax": DECODES,
        "torch": DECODES,
    },
    "test_keras_hub_detector.py": {
        "jax": "the detection extra is for TensorFlow",
        "torch": "the detection extra is for TensorFlow",
    },
    "test_documentation.py::test_the_readme_code_runs_as_it_stands": {"torch": NO_SAVED_MODEL},
    "test_example_digits.py::test_the_whole_story": {"torch": NO_SAVED_MODEL},
    "test_example_cifar10.py::test_an_experiment_is_run_once_and_resumed": {
        "jax": READS_MORE,
        "torch": READS_MORE,
    },
}


def why_not(item, backend):
    """Why a test cannot hold on a backend.

    Args:
        item: The collected test, a `pytest.Item`.
        backend: The name of the backend of this session.

    Returns:
        The reason, or `None` where the test can hold.
    """
    name = f"{item.path.name}::{item.name}"
    for known in (name, name.split("[")[0], item.path.name):
        if backend in LIMITS.get(known, {}):
            return LIMITS[known][backend]
    return None
