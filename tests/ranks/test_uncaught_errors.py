"""An error that nobody has caught is shown, and what is under way is finished.

Jobs of several ranks end in tests/launched.
"""

import sys

import pytest

from hvd_xai.ranks.uncaught_errors import end_job_on_uncaught_error
from hvd_xai.ranks.world import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    return World.alone()


def die(error: Exception) -> None:
    sys.excepthook(type(error), error, None)


def test_alone_an_error_is_shown_and_what_is_under_way_is_finished(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    finished: list[bool] = []
    world.under_way.append(finished.append)
    end_job_on_uncaught_error(world)
    die(ValueError("no such \x1b[31mlayer"))
    assert finished == [True]
    said = capsys.readouterr().err
    assert "ValueError: no such" in said
    assert "\x1b" not in said


def test_a_hook_of_the_users_own_shows_the_error(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *what: shown.append(what[1]))
    end_job_on_uncaught_error(world)
    error = ValueError("no such layer")
    die(error)
    assert shown == [error]
    assert capsys.readouterr().err == ""
