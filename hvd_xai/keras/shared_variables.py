"""Tells the variables that all ranks share from those that each rank keeps for itself."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras


def unique(variables: "Iterable[keras.Variable]") -> "Iterator[keras.Variable]":
    """Yields each variable once; a layer that is shared lists its weights several times."""
    met = set()
    for variable in variables:
        if id(variable) not in met:
            met.add(id(variable))
            yield variable


def is_seed_state(variable: "keras.Variable") -> bool:
    """Returns whether the variable is the state of a seed generator.

    Each rank keeps its own: with equal states every rank would drop out the same units.
    """
    return "seed_generator_state" in variable.path


def seed_states_in(model: "keras.Model") -> "list[keras.Variable]":
    """Returns the states of the model's seed generators, in the order of the model's variables."""
    return [variable for variable in unique(model.variables) if is_seed_state(variable)]


def shared_variables(
    variables: "Sequence[keras.Variable]", local: Sequence[Any] = ()
) -> "list[keras.Variable]":
    """Returns the variables that all ranks share, each once.

    Args:
        variables: variables of a model or an optimizer.
        local: Keras's or TensorFlow's variables that each rank keeps for itself, beside the states
            of seed generators.
    """
    kept = {id(variable) for variable in local}
    return [
        variable
        for variable in unique(variables)
        if not (
            is_seed_state(variable)
            or id(variable) in kept
            # A variable may be named as the TensorFlow variable that Keras's one holds.
            or id(getattr(variable, "value", None)) in kept
        )
    ]
