"""What is no sink is refused before anything is computed; any function of the two is one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from hvd_xai.recording.sink_calls import check_sinks, close_sinks
from hvd_xai.sinks import Sink


def _log(run: object, explanation: object, *, prefix: str = "") -> None: ...


def _of_one(explanation: object) -> None: ...


def _of_options(run: object, explanation: object, *, path: str) -> None: ...


class _Counting:
    def __init__(self, path: str) -> None:
        self.n_closed = 0

    def __call__(self, run: object, explanation: object, /) -> None: ...

    def close(self) -> None:
        self.n_closed += 1

    def log(self, *both: object) -> None: ...


def test_whatever_can_be_called_with_both_is_a_sink() -> None:
    sinks: list[Sink] = [
        _log,
        partial(_log, prefix="x"),
        _Counting("a"),
        _Counting("b").log,
        lambda run, explanation: None,
        print,
    ]
    assert check_sinks(sinks) == tuple(sinks)


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ([_of_one], r"'_of_one' takes \(explanation: object\).*Write it as def _of_one\(run, expl"),
        ([_of_options], r"missing a required .*argument: 'path'"),
        ([_Counting], r"make one of the class: pass _Counting\(\.\.\.\)"),
        (
            ["tensorboard"],
            r"a sink is a function of \(run, explanation\), .*; got str|Type-check error",
        ),
        (_log, r"sinks= is a list of sinks; pass sinks=\[_log\]"),
    ],
)
def test_what_cannot_is_refused_with_what_to_write(sinks: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_sinks(sinks)


def test_only_sinks_that_have_something_to_close_are_closed() -> None:
    counting = _Counting("a")
    log: Callable[..., None] = _log
    close_sinks([log, counting, counting])
    assert counting.n_closed == 2
