"""Records say their rank, and a quiet start hides nothing but chatter."""

import logging
import os
from collections.abc import Iterator

import pytest

from hvd_xai.log import configure, printable, printable_lines, quiet_start

log = logging.getLogger("hvd_xai.tests")
HOSTILE = "\x1b]0;OWNED\x07\x1b[31m\n\rok: all whole\u202e\x9b2J\u2028"
"""What a name of a file may hold: a window title, a colour, a line of ours, text turned around."""


def test_no_text_steers_a_terminal() -> None:
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert shown.startswith("\\x1b]0;OWNED\\x07\\x1b[31m\\n\\rok: all whole\\u202e\\x9b2J\\u2028")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/Müller 猫/[red]x[/red]", "/data/Müller 猫/[red]x[/red]"),
        ("10\xa0mm", "10 mm"),
        # a name that is no UTF-8, as Python reads it from the disk
        ("caf\udce9", "caf\\udce9"),
        ("\u2066a\u200bb\u2069", "\\u2066a\\u200bb\\u2069"),
    ],
)
def test_what_people_write_stays_as_it_is_and_what_they_cannot_see_is_shown(
    text: str, shown: str
) -> None:
    assert printable(text) == shown
    assert printable_lines(f"{text}\n{text}") == f"{shown}\n{shown}"


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("hvd_xai")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_records_of_several_ranks_name_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    configure(rank=0, size=4, host="node-1")
    log.info("merged")
    log.debug("unseen")
    assert capsys.readouterr().err == "[rank 0/4 node-1] INFO merged\n"


def test_a_rank_alone_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log.info("merged")
    assert capsys.readouterr().err == "INFO merged\n"


def test_other_ranks_than_the_root_warn_and_say_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(rank=3, size=4, host="node-2")
    log.info("merged")
    log.warning("slow")
    assert capsys.readouterr().err == "[rank 3/4 node-2] WARNING slow\n"


def test_a_record_is_one_line_and_a_traceback_below_it_steers_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(rank=0, size=2, host="node\x1b[2J")
    log.warning("cannot read %s", HOSTILE)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("lost")
    first, second, *trace = capsys.readouterr().err.splitlines()
    assert first == f"[rank 0/2 node\\x1b[2J] WARNING cannot read {printable(HOSTILE)}"
    assert second.endswith("ERROR lost")
    assert trace[0].startswith("Traceback")
    assert all(line.isprintable() for line in trace)


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    configure(rank=0, size=2, host="node-1")
    configure(rank=0, size=3, host="node-1", level=logging.WARNING)
    log.info("unseen")
    log.error("failed")
    assert capsys.readouterr().err == "[rank 0/3 node-1] ERROR failed\n"


def test_a_quiet_start_drops_chatter_and_keeps_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_start():
        os.write(2, b"I0000 00:00:1795 42 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"W0000 00:00:1795 42 gpu.cc:9] no GPU is found\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "W0000 00:00:1795 42 gpu.cc:9] no GPU is found\n"


def test_what_tensorflow_says_at_its_start_is_said_by_the_root_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with quiet_start(is_root=False):
        os.write(2, b"W0000 00:00:1795 42 gpu.cc:9] no GPU is found\n")
        os.write(2, b"2025-01-31 12:00:00.123456: E external/cuda.cc:51] no cuFFT factory\n")
        os.write(2, b"UserWarning: of somebody else\n")
    assert capfd.readouterr().err == "UserWarning: of somebody else\n"
    with pytest.raises(ImportError), quiet_start(is_root=False):
        _fail_with(b"E0000 00:00:1795 42 cuda.cc:9] libcudart is missing\n")
    assert "libcudart is missing" in capfd.readouterr().err


def _fail_with(line: bytes) -> None:
    os.write(2, line)
    raise ImportError


def test_a_quiet_start_that_fails_still_shows_what_was_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def load() -> None:
        os.write(2, b"libcudart is missing\n")
        raise ImportError("libcudart")

    with pytest.raises(ImportError, match="libcudart"), quiet_start():
        load()
    os.write(2, b"behind\n")
    assert capfd.readouterr().err == "libcudart is missing\nbehind\n"
