"""What `compress` hands back."""

import dataclasses
import pathlib

import keras

from keras_ktan.report import CompressionReport


@dataclasses.dataclass(frozen=True)
class CompressionResult:
    """A student, the files made from it, and the report on both.

    Args:
        student: The student with the weights of its best epoch; a plain `keras.Model`.
        report: A `CompressionReport` on teacher, student and files.
        paths: Dict from `"student"`, the formats asked for, `"report.md"` and `"report.json"` to
            `pathlib.Path`s.
        methods: Dict from the methods that were trained (`"KTAN"`, and with `compare=True`
            `"logit_distillation"` and `"supervised"`) to dicts: `best_epoch`, counted from 1,
            `monitor`, `best` (its value there), `test` (metrics on the test data; empty without)
            and `history` (the logs of each epoch).
    """

    student: keras.Model
    report: CompressionReport
    paths: dict[str, pathlib.Path]
    methods: dict[str, dict]
