import math
from contextlib import nullcontext

import numpy as np
import pytest

from hvd_xai.errors import PeerError, is_agreed
from hvd_xai.ranks.world import World


def test_rank_is_within_size_and_every_rank_has_a_host(world: World) -> None:
    assert 0 <= world.rank < world.size
    assert len(world.hosts) == world.size
    assert world.is_root == (world.rank == 0)


def test_allgather_returns_values_in_the_order_of_ranks(world: World) -> None:
    values = world.allgather("testing", {"rank": world.rank, "text": "é" * world.rank})
    assert values == [{"rank": rank, "text": "é" * rank} for rank in range(world.size)]


def test_gathered_values_keep_their_types(world: World) -> None:
    values = world.allgather("testing", (world.rank, "host", [0.5 * world.rank]))
    assert values == [(rank, "host", [0.5 * rank]) for rank in range(world.size)]


def test_every_rank_gets_the_roots_value(world: World) -> None:
    value = ["root"] if world.is_root else None
    assert world.from_root("testing", value) == ["root"]
    assert world.from_root("testing", world.rank) == 0


def test_a_root_that_sends_nothing_is_refused_on_all_ranks(world: World) -> None:
    value = None if world.is_root else "not asked"
    with pytest.raises(TypeError, match="testing: rank 0 must send a value") as caught:
        world.from_root("testing", value)
    assert is_agreed(caught.value)


def test_ranks_that_hold_the_same_go_on(world: World) -> None:
    keys = ["a", "b"] if world.is_root else ["b", "a"]
    world.same("testing", dict.fromkeys(keys, math.nan), "never said.")


def test_the_first_rank_that_differs_is_named_on_all_ranks(world: World) -> None:
    differs = (
        pytest.raises(ValueError, match=r"^rank 1 differs from rank 0: give all ranks one seed\.$")
        if world.size > 1
        else nullcontext()
    )
    with differs as caught:
        world.same("testing", [world.rank > 0, "seed"], "give all ranks one seed.")
    assert caught is None or is_agreed(caught.value)
    assert world.allgather("testing", world.rank) == list(range(world.size))


def _write(*, full: bool) -> None:
    if full:
        raise OSError("the disk is full")


def test_agree_goes_on_where_no_rank_failed(world: World) -> None:
    world.agree("testing")


def test_one_failing_rank_raises_on_all_with_rank_and_cause(world: World) -> None:
    last = world.size - 1
    expected = PeerError if world.size > 1 else OSError
    with pytest.raises(expected, match="the disk is full") as caught, world.together("writing"):
        _write(full=world.rank == last)
    if world.size > 1:
        assert f"writing: rank {last} on {world.hosts[last]} failed: OSError" in str(caught.value)


def test_an_error_that_all_ranks_meet_keeps_its_type(world: World) -> None:
    with pytest.raises(ValueError, match="no such layer"), world.together("compiling"):
        raise ValueError("no such layer")


def test_ranks_go_on_together_after_an_error(world: World) -> None:
    assert world.allgather("testing", world.rank) == list(range(world.size))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_uneven_rows_gather_at_the_root_in_the_order_of_ranks(
    world: World, shape: tuple[int, ...]
) -> None:
    counts = [2 * rank for rank in range(world.size)]  # the root has none
    rows = np.full((counts[world.rank], *shape), world.rank, np.float32)
    gathered = world.gather_rows("testing", rows, counts)
    if not world.is_root:
        assert gathered is None
        return
    assert gathered is not None
    expected = np.repeat(np.arange(world.size, dtype=np.float32), counts)
    np.testing.assert_array_equal(
        gathered, np.broadcast_to(expected.reshape(-1, *[1] * len(shape)), (sum(counts), *shape))
    )


def test_rows_of_records_gather_with_every_field(world: World) -> None:
    dtype = np.dtype([("values", "<f2", (3,)), ("sample_id", "<i8")])
    rows = np.zeros(1, dtype)
    rows["sample_id"], rows["values"] = world.rank, 0.5
    gathered = world.gather_rows("testing", rows, [1] * world.size)
    if world.is_root:
        assert gathered is not None
        assert gathered["sample_id"].tolist() == list(range(world.size))
        assert np.all(gathered["values"] == np.float16(0.5))


def test_a_round_without_any_rows_gathers(world: World) -> None:
    gathered = world.gather_rows("testing", np.empty((0, 4), np.float32), [0] * world.size)
    assert (gathered is None) != world.is_root


@pytest.mark.parametrize("shape", [(), (3,)])
def test_exchanged_rows_arrive_in_the_order_of_the_ranks_they_come_from(
    world: World, shape: tuple[int, ...]
) -> None:
    # uneven, and some have nothing for another
    sent = [(world.rank + 2 * to) % 3 for to in range(world.size)]
    received = [(source + 2 * world.rank) % 3 for source in range(world.size)]
    values = np.repeat([10 * world.rank + to for to in range(world.size)], sent).astype(np.float32)
    rows = world.exchange_rows(
        "testing",
        np.broadcast_to(values.reshape(-1, *[1] * len(shape)), (len(values), *shape)),
        sent,
        received,
    )
    expected = np.repeat(
        [10 * source + world.rank for source in range(world.size)], received
    ).astype(np.float32)
    np.testing.assert_array_equal(
        rows, np.broadcast_to(expected.reshape(-1, *[1] * len(shape)), (len(expected), *shape))
    )


def test_an_exchange_without_any_rows_ends(world: World) -> None:
    assert world.exchange_rows(
        "testing", np.empty((0, 4), np.float32), [0] * world.size, [0] * world.size
    ).shape == (0, 4)
