"""Imports Keras and its backend without their start-up lines. Import it before Keras."""

import keras_ktan_startup

keras_ktan_startup.import_keras()
