"""Pictures of a training and of what came out of it. They need matplotlib."""

from keras_ktan.plots.compression import plot_compression
from keras_ktan.plots.curves import plot_training_curves
from keras_ktan.plots.maps import feature_map_agreement, feature_map_panels, plot_feature_maps

__all__ = [
    "feature_map_agreement",
    "feature_map_panels",
    "plot_compression",
    "plot_feature_maps",
    "plot_training_curves",
]
