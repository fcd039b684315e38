import math
from typing import Any

import pytest

from hvd_xai.errors import WorldError
from hvd_xai.protocols import Json
from hvd_xai.ranks.world import World


@pytest.mark.parametrize("text", ["abc", "0", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVD_XAI_DEADLINE", text)
    with pytest.raises(WorldError, match="HVD_XAI_DEADLINE must be a number of seconds"):
        World.connect()


def test_alone_is_a_world_of_one() -> None:
    world = World.alone()
    assert (world.rank, world.size, world.is_root, len(world.hosts)) == (0, 1, True, 1)
    assert world.allgather("testing", [1, None]) == [[1, None]]
    with pytest.raises(OSError, match="full"), world.together("testing"):
        raise OSError("full")


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "é", [1, "two"], (1, "two"), {"a": [None]}])
def test_alone_what_is_gathered_keeps_its_type(value: Json) -> None:
    assert World.alone().allgather("testing", value) == [value]


def test_alone_the_own_value_is_the_roots_and_the_same() -> None:
    world = World.alone()
    assert world.from_root("testing", ("epochs", 7)) == ("epochs", 7)
    world.same("testing", math.nan, "never said.")


def test_a_root_that_sends_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="testing: rank 0 must send a value"):
        World.alone().from_root("testing", None)


@pytest.mark.parametrize(
    "value", [(1, "two", None), [1, (2.5, [True])], {"a": (1,), "b": [()]}, "text", None, ()]
)
def test_values_arrive_as_they_were_sent_tuples_too(value: Any) -> None:
    [received] = World.alone().allgather("testing", value)
    assert received == value
    assert type(received) is type(value)
