import keras
import numpy as np
import pytest

import hvd_xai.keras as hvd
from hvd_xai import RunDirectory, Training, World
from hvd_xai.errors import RecipeError
from hvd_xai.keras.model_files import seed_states
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.protocols import Silent
from hvd_xai.train.prepare import (
    build_callbacks,
    distribute,
    prepare,
    separate_seeds,
    share_rows,
)
from hvd_xai.train.settings import Settings
from tests.train.tiny import RECIPE, build, load


@pytest.fixture(scope="module", autouse=True)
def world() -> World:
    return hvd.init()


def test_one_seed_gives_one_model(world: World) -> None:
    first, again, other = (
        prepare(RECIPE, Settings(seed=seed), world)[1].get_weights() for seed in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("functions", "complaint"),
    [
        ({"build": build, "load": lambda: None}, "must return hvd_xai.Data; it returned NoneType"),
        ({"build": lambda: 1, "load": load}, "must return a keras.Model; it returned int"),
        (
            {"build": lambda: keras.Sequential([keras.layers.Dense(2)]), "load": load},
            "must return a compiled model",
        ),
    ],
)
def test_a_recipe_that_returns_something_else_is_refused(
    functions: dict[str, object], complaint: str, world: World
) -> None:
    recipe = Recipe("mine", "mine.py", functions)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=complaint):
        prepare(recipe, Settings(), world)


def test_callbacks_come_in_order_with_their_options(world: World) -> None:
    def first(training: Training, *, patience: int = 1) -> list[keras.callbacks.Callback]:
        return [keras.callbacks.EarlyStopping(patience=patience)]

    def second(training: Training) -> list[keras.callbacks.Callback]:
        return [keras.callbacks.LambdaCallback(), keras.callbacks.TerminateOnNaN()]

    training = Training(world, load().probe, RunDirectory("nowhere"), 5, Silent())
    recipes = [Recipe("a", "a.py", {"build": first}), Recipe("b", "b.py", {"build": second})]
    settings = Settings(options={"a.build": {"patience": 7}})
    built = build_callbacks(recipes, training, settings)
    names = [type(callback).__name__ for callback in built]
    assert names == ["EarlyStopping", "LambdaCallback", "TerminateOnNaN"]
    assert built[0].patience == 7


@pytest.mark.parametrize("built", [None, keras.callbacks.TerminateOnNaN(), [1]])
def test_a_callback_recipe_returns_a_list_of_callbacks(built: object, world: World) -> None:
    training = Training(world, load().probe, RunDirectory("nowhere"), 5, Silent())
    recipe = Recipe("mine", "mine.py", {"build": lambda training: built})
    with pytest.raises(RecipeError, match="must return a list of Keras callbacks"):
        build_callbacks([recipe], training, Settings())


def test_the_learning_rate_is_scaled_by_the_ranks() -> None:
    model = build()
    assert distribute(model, 4) == pytest.approx(0.01)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.04)
    assert model.jit_compile is False


def test_a_schedule_stays_as_it_is() -> None:
    model = build()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    assert distribute(model, 4) is None
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_each_rank_drops_out_other_units() -> None:
    seeds = []
    for rank in (0, 1, 2):
        keras.utils.set_random_seed(5)
        model = build()
        separate_seeds(model, rank)
        seeds.append(seed_states(model)[0][0])
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


def test_ranks_share_the_rows_out() -> None:
    arrays = np.arange(5), np.arange(5) * 10
    shares = [share_rows(arrays, rank=rank, size=2) for rank in (0, 1)]
    assert [inputs.tolist() for inputs, _ in shares] == [[0, 2, 4], [1, 3]]
    assert [targets.tolist() for _, targets in shares] == [[0, 20, 40], [10, 30]]


def test_fewer_rows_than_ranks_go_to_all() -> None:
    arrays = np.arange(2), np.arange(2)
    assert [len(share_rows(arrays, rank=rank, size=3)[0]) for rank in range(3)] == [2, 2, 2]
