"""Data sets, networks and measures that the project's examples and benchmarks share.

They show and measure `keras_ktan`; nothing in `keras_ktan` needs them.
"""
