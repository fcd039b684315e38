"""Which variables of a model are the same on all ranks, and which are each rank's own."""

from collections.abc import Iterable, Iterator

import keras


def unique(variables: "Iterable[keras.Variable]") -> "Iterator[keras.Variable]":
    """Leaves out what was met before, as the weights of a layer that is shared."""
    met = set()
    for variable in variables:
        if id(variable) not in met:
            met.add(id(variable))
            yield variable


def is_seed(variable: "keras.Variable") -> bool:
    """Returns whether this is the state of a seed generator: equal ones would drop out the same
    units on every rank.
    """
    return "seed_generator_state" in variable.path


def seeds_of(model: "keras.Model") -> "list[keras.Variable]":
    """Returns the states of the model's seed generators."""
    return [variable for variable in unique(model.variables) if is_seed(variable)]
