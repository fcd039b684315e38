"""All ranks take the same number of steps in an epoch, or are refused."""

import pytest

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World
from tests.launched.fitting import first_callbacks, make_model, zeros


def test_unequal_steps_are_refused_on_all_ranks(world: World) -> None:
    if world.size == 1:
        return
    with pytest.raises(ValueError, match=r"rank 0: 1, rank 1: 2.*steps_per_epoch=1"):
        make_model().fit(
            *zeros(4 + 4 * world.rank), batch_size=4, verbose=0, callbacks=first_callbacks()
        )


def test_an_epoch_without_a_known_end_is_refused_on_all_ranks(world: World) -> None:
    if world.size == 1:
        return
    batches = (zeros() for _ in range(4 + world.rank))
    with pytest.raises(ValueError, match=r"not known how many batches.*steps_per_epoch"):
        make_model().fit(batches, shuffle=False, verbose=0, callbacks=first_callbacks())


def test_steps_are_agreed_on(world: World) -> None:
    mine = 4 + world.rank
    assert hvd.agree_steps(world, mine, uneven="min") == 4
    assert hvd.agree_steps(world, mine, uneven="max") == 4 + world.size - 1
