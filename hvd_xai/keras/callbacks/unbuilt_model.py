"""Builds a model that has no weights before `fit` shows it a batch, from what the batch is like."""

import logging
import warnings
from typing import Any

import keras
import tensorflow as tf

log = logging.getLogger(__name__)


def is_whole(model: "keras.Model") -> bool:
    """Returns whether the model and all of its layers that make weights, however deep, are built.

    The number of variables does not tell: Dropout has the state of its seed before any layer has
    weights.
    """
    # There is no public way to all layers, nor to whether a layer has a `build` of its own: one
    # without makes no weights but those of layers within it, and may never be called.
    return bool(model.built) and all(
        layer.built or getattr(layer.build, "_is_default", False)
        for layer in model._flatten_layers(include_self=False)
    )


def build_for(model: "keras.Model", batch: Any) -> None:
    """Builds a model for batches like the given one.

    Nothing is computed, and nothing is raised: a model that cannot be run on what `fit` feeds it,
    since its `train_step` takes the batches apart in a way of its own, stays as it is and makes its
    weights in its first training step.

    Args:
        model: model that `fit` is about to train.
        batch: specification of a batch, as the attribute `element_spec` of a data set's iterator:
            inputs, or a tuple of inputs, targets and weights.
    """
    try:
        # Keras warns of a model that it cannot build; whoever reads that has done nothing wrong.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            # in training, where a model may have heads that it does without in inference
            model(keras.tree.map_structure(_symbolic, inputs), training=True)
    except Exception:  # whatever a model's own `call` may raise
        log.debug("model '%s' cannot be built from a batch", model.name, exc_info=True)


def _symbolic(spec: "tf.TypeSpec") -> "keras.KerasTensor":
    return keras.KerasTensor(
        spec.shape,
        keras.backend.standardize_dtype(spec.dtype),
        sparse=isinstance(spec, tf.SparseTensorSpec),
        ragged=isinstance(spec, tf.RaggedTensorSpec),
    )
