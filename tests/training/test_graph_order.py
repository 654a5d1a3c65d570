"""In the graph that TensorFlow runs, every read of a weight is ordered against its update.

TensorFlow orders them when it traces a function, and its graph optimizer may take an order away
again (2.21 does, where a weight whose gradient is stopped is read; `test_oracle.py` met it). A
step whose networks all move at once would then now and then see a weight that has moved already.
"""

import keras
import pytest
from models import image_data, image_model, loss_from_logits

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent

pytestmark = pytest.mark.graph

tf = pytest.importorskip("tensorflow")


def unordered(nodes):
    """Pairs of a read and an update of one variable of which neither comes after the other.

    Args:
        nodes: The nodes of a `GraphDef` or of a function in one.

    Returns:
        A tuple of the list of pairs of names, and the numbers of reads and of updates.
    """
    inputs = {
        node.name: [name.lstrip("^").partition(":")[0] for name in node.input] for node in nodes
    }

    def before(name):
        found, left = set(), [name]
        while left:
            for other in inputs.get(left.pop(), ()):
                if other not in found:
                    found.add(other)
                    left.append(other)
        return found

    reads = [node.name for node in nodes if node.op == "ReadVariableOp"]
    updates = [node.name for node in nodes if node.op.startswith("Assign")]
    earlier = {name: before(name) for name in reads + updates}
    pairs = [
        (read, update)
        for update in updates
        for read in reads
        if inputs[read][0] == inputs[update][0]
        and read not in earlier[update]
        and update not in earlier[read]
    ]
    return pairs, len(reads), len(updates)


def optimised_graphs(folder, run):
    """The graphs that TensorFlow made of the functions of a run, after its optimizer.

    Args:
        folder: `pathlib.Path` to write to.
        run: Function that runs them.

    Returns:
        A list of `GraphDef`.
    """
    tf.summary.trace_on(graph=True)
    run()
    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.trace_export("step", step=0)
    (path,) = folder.iterdir()
    graphs = []
    for record in tf.data.TFRecordDataset(str(path)):
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
            for text in value.tensor.string_val:
                found = tf.compat.v1.RunMetadata.FromString(text).function_graphs
                graphs += [function.post_optimization_graph for function in found]
    return graphs


@pytest.mark.parametrize("ordered", [False, True])
def test_a_read_without_an_order_is_found(ordered):
    with tf.Graph().as_default() as graph:
        weight, other = (
            tf.raw_ops.VarHandleOp(dtype="float32", shape=(2,), shared_name=name) for name in "ab"
        )
        read = tf.raw_ops.ReadVariableOp(resource=weight, dtype="float32")
        tf.raw_ops.AssignAddVariableOp(resource=other, value=tf.zeros(2))
        with tf.control_dependencies([read] if ordered else []):
            tf.raw_ops.AssignAddVariableOp(resource=weight, value=tf.ones(2))
    found = unordered(graph.as_graph_def().node)
    pairs = [] if ordered else [("ReadVariableOp", "AssignAddVariableOp_1")]
    assert found == (pairs, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["student_head", "task", "reconstruction"])
def test_no_step_can_see_a_weight_that_has_moved_already(tmp_path, objective):
    distiller = KTANDistiller(
        image_model(6, "teacher", seed=1),
        image_model(4, "student", regularizer=keras.regularizers.L2(1e-2), seed=2),
        FeaturePair(
            "features", "features", teacher_to_student=TeacherToStudent(objective=objective)
        ),
    )
    distiller.compile(
        "sgd", loss=loss_from_logits(), jit_compile=False, adversarial_loss_weight=0.02
    )
    graphs = optimised_graphs(tmp_path, lambda: distiller.train_on_batch(*image_data(8)))
    results = [unordered(graph.node) for graph in graphs]
    moved = len(distiller.trainable_variables)
    assert max(updates for _, _, updates in results) > moved
    assert [pair for pairs, _, _ in results for pair in pairs] == []
