"""An experiment of the benchmarks that takes seconds."""

TINY = """
title = "Tiny"
task = "digits"
epochs = 1
batch_size = 250
learning_rate = 0.03
teacher_learning_rate = 0.004
seeds = 1

[teacher]
filters = [8, 12]

[student]
filters = [4, 6]

[methods.supervised]

[methods.logit_distillation]
logits = 1.0
"""
