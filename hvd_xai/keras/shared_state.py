"""Gives every rank one rank's state: variables, and what layers hold beside their variables."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hvd_xai.keras.callbacks.same_model import check_same_model
from hvd_xai.keras.collectives import broadcast_variables
from hvd_xai.keras.shared_variables import shared_variables
from hvd_xai.keras.start import init
from hvd_xai.protocols import Json
from hvd_xai.provenance import digest
from hvd_xai.ranks.transport import ROOT
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)


def share_state(
    model: "keras.Model",
    optimizer: "keras.optimizers.Optimizer",
    *,
    root_rank: int = ROOT,
    local: Sequence[Any] = (),
    device: str = "",
) -> bool:
    """Gives every rank the weights, the optimizer's state and the vocabularies of one rank.

    Collective: every rank must call this. The states of seed generators stay each rank's own.

    Beside Keras's variables it sends TensorFlow's variables that layers hold, vocabularies of
    look-up layers and boundaries of bins. A layer that has computed something from its variables
    beforehand, as Normalization has, computes it anew.

    Args:
        model: this rank's model.
        optimizer: optimizer whose variables are sent as well.
        root_rank: rank whose state every rank gets.
        local: variables that each rank keeps for itself.
        device: device where TensorFlow places what is broadcast; TensorFlow chooses if it is empty.

    Returns:
        Whether this rank's layers compute otherwise now than in functions that were traced before.

    Raises:
        ValueError: on every rank, if their models differ.
    """
    world = init()
    variables = shared_variables([*model.variables, *optimizer.variables], local)
    kept = {id(variable) for variable in local}
    unlisted = [variable for variable in unlisted_variables(model) if id(variable) not in kept]
    check_same_model(world, [*variables, *unlisted])
    deriving = [
        layer
        for layer in model._flatten_layers()
        # Where nothing is a variable, what was adapted is all that there is: Discretization, once
        # loaded from a file, would lose its boundaries.
        if layer.weights and callable(getattr(layer, "finalize_state", None))
    ]
    before = [_weights_of(layer) for layer in deriving]
    with tf.device(device):
        broadcast_variables([*variables, *unlisted], root_rank)
    changed = False
    # Layers within others come last in the list, and are to be ready first.
    for layer, was in reversed(list(zip(deriving, before, strict=True))):
        if _weights_of(layer) != was:
            layer.finalize_state()
            changed = True
    return _share_adapted(model, world, root_rank) or changed


def unlisted_variables(model: "keras.Model") -> "list[tf.Variable]":
    """Returns TensorFlow's variables that layers hold and that Keras does not list.

    Those of look-up layers are left out: they belong to the vocabulary. So is what Horovod cannot
    send, such as texts.
    """
    seen = {id(variable.value) for variable in model.variables}
    found = []
    for layer in model._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            continue
        for variable in _tensorflow_variables(vars(layer).values()):
            if id(variable) not in seen and variable.dtype in _SENT:
                seen.add(id(variable))
                found.append(variable)
    return found


_SENT = {tf.bfloat16, tf.float16, tf.float32, tf.float64, tf.int32, tf.int64, tf.bool}


def _tensorflow_variables(values: Any) -> "Iterator[tf.Variable]":
    for value in values:
        if isinstance(value, tf.Variable):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensorflow_variables(value)
        elif isinstance(value, dict):
            yield from _tensorflow_variables(value.values())


def _weights_of(layer: "keras.layers.Layer") -> str:
    return digest(*(np.asarray(weight.value) for weight in layer.weights))


class _Adapted(NamedTuple):
    """What a layer has learnt from data with `adapt`, and holds in no variable."""

    layer: "keras.layers.Layer"
    value: Json
    take: Callable[[Any], None]


def _share_adapted(model: "keras.Model", world: World, root_rank: int) -> bool:
    """Gives every rank the vocabularies and boundaries of one rank; returns whether any changed.

    Collective: every rank must call this.
    """
    with world.together("reading the vocabularies"):
        mine = [adapted for layer in model._flatten_layers() for adapted in _adapted(layer)]
    values = [adapted.value for adapted in mine]
    # First the digests: vocabularies are large, and nearly always equal.
    text = np.frombuffer(repr(values).encode(), np.uint8)
    if len(set(world.allgather("comparing the vocabularies", digest(text)))) == 1:
        return False
    theirs = world.allgather("sending the vocabularies", values if world.rank == root_rank else [])
    new = [
        (adapted, value)
        for adapted, value in zip(mine, theirs[root_rank], strict=True)
        if value != adapted.value
    ]
    with world.together(f"taking over the vocabularies of rank {root_rank}"):
        for adapted, value in new:
            if not value:
                raise ValueError(
                    f"rank {root_rank} has not adapted its layer '{adapted.layer.name}', and rank"
                    f" {world.rank} has; adapt the layer on rank {root_rank} too, before fit"
                )
            adapted.take(value)
    if new:
        log.warning(
            "what %s had learnt from data by adapt() was not what rank %d had; it is now. Adapt"
            " layers to the same data on every rank, also where a data set uses them.",
            ", ".join(f"'{adapted.layer.name}'" for adapted, _ in new),
            root_rank,
        )
    return bool(new)


def _adapted(layer: "keras.layers.Layer") -> Iterator[_Adapted]:
    """Yields what a layer has learnt from data; an empty value if it has learnt nothing yet."""
    # TextVectorization hands its vocabulary on to a layer within it, which is met by itself.
    within = layer._flatten_layers(include_self=False)
    if hasattr(layer, "get_vocabulary") and not any(
        hasattr(inner, "get_vocabulary") for inner in within
    ):
        yield _Adapted(layer, _vocabulary(layer), lambda value: _set_vocabulary(layer, value))
    elif isinstance(layer, keras.layers.Discretization):
        boundaries = [float(edge) for edge in layer.bin_boundaries or []]
        yield _Adapted(
            layer, boundaries, lambda value: setattr(layer, "bin_boundaries", list(value))
        )


def _vocabulary(layer: "keras.layers.Layer") -> list[Json]:
    """Returns tokens, those for unknown words first, and their weights; empty if there are none."""
    if not layer.get_vocabulary(include_special_tokens=False):
        return []
    tokens: list[Json] = [
        token if isinstance(token, str) else int(token) for token in layer.get_vocabulary()
    ]
    weights = getattr(layer, "idf_weights", None)
    if weights is None:
        return [tokens]
    # behind the tokens there may be zeros up to the largest number of tokens
    return [tokens, [float(weight) for weight in weights.numpy()[: len(tokens)]]]


def _set_vocabulary(layer: "keras.layers.Layer", value: Sequence[Any]) -> None:
    tokens, *weights = value
    layer.set_vocabulary(tokens, *weights)
