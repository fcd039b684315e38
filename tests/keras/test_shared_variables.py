"""Ranks share every variable except seeds and those that each rank keeps for itself."""

import keras

from hvd_xai.keras.shared_variables import (
    is_seed_state,
    seed_states_in,
    shared_variables,
    unique,
)

LAYER = keras.layers.Dense(2)
MODEL = keras.Sequential(
    [
        keras.Input((2,)),
        LAYER,
        keras.layers.Dropout(0.5),
        LAYER,
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
    ]
)


def test_a_variable_that_is_listed_twice_comes_once_in_order() -> None:
    first, second = LAYER.variables
    assert list(unique([first, second, first])) == [first, second]


def test_equal_variables_are_not_one() -> None:
    twins = [keras.Variable([1.0]), keras.Variable([1.0])]
    assert len(list(unique(twins))) == 2


def test_each_dropout_has_a_seed_of_its_own() -> None:
    seeds = seed_states_in(MODEL)
    assert len(seeds) == 2
    assert all(is_seed_state(seed) for seed in seeds)
    assert not any(is_seed_state(variable) for variable in LAYER.variables)


def test_all_is_shared_but_seeds() -> None:
    shared = {id(variable) for variable in shared_variables(MODEL.variables)}
    rest = [variable for variable in MODEL.variables if id(variable) not in shared]
    assert [id(variable) for variable in rest] == [id(seed) for seed in seed_states_in(MODEL)]


def test_a_local_variable_may_be_keras_or_the_tensorflow_variable_that_it_holds() -> None:
    kernel, bias = LAYER.variables
    assert shared_variables([kernel, bias], [bias]) == [kernel]
    assert shared_variables([kernel, bias], [bias.value]) == [kernel]
