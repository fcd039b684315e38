"""Log records that say which rank they come from, and text that cannot steer a terminal."""

import logging
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: str) -> str:
    r"""Returns a text, which anybody may have written, as one line that cannot steer a terminal.

    Control characters, line breaks and marks that turn the direction of writing are written as
    Python escapes.

    Example:
        >>> printable("bee\x1b[2J\nall whole")
        'bee\\x1b[2J\\nall whole'
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    # wide and unbreakable spaces do no harm, and stand in names that people write
    if unicodedata.category(character) == "Zs":
        return " "
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def printable_lines(text: str) -> str:
    r"""Returns a text of our own of several lines, such as a traceback, with each made printable.

    Example:
        >>> printable_lines("ValueError:\n\x1b[2J")
        'ValueError:\n\\x1b[2J'
    """
    # not splitlines: what it takes for the end of a line is a control character to a terminal
    return "\n".join(map(printable, text.split("\n")))


class _RankFilter(logging.Filter):
    """Adds the rank to each record, and drops INFO records of all ranks but the root."""

    def __init__(self, rank: int, size: int, host: str) -> None:
        super().__init__()
        self._prefix = f"[rank {rank}/{size} {host}] " if size > 1 else ""
        self._is_root = rank == 0

    def filter(self, record: logging.LogRecord) -> bool:
        record.prefix = self._prefix
        return self._is_root or record.levelno >= logging.WARNING


class _Formatter(logging.Formatter):
    """Writes each record as one line, and its traceback, if it has one, below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Returns the line, which may name files and folders that anybody has made."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """Returns the traceback, whose last lines are an error's message."""
        return printable_lines(super().formatException(ei))


def configure(
    rank: int = 0, size: int = 1, host: str = "localhost", level: int = logging.INFO
) -> None:
    """Sends the library's log records to standard error, each with the rank that it comes from.

    A second call replaces the first one's handler.

    Args:
        rank: number of this process among the ranks.
        size: number of ranks; records of a job of one rank do not name it.
        host: name of this rank's host.
        level: lowest level of a record that is shown.
    """
    # on a handler, not on the logger: a logger's filter does not see what its children log
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_RankFilter(rank, size, host))
    handler.setFormatter(_Formatter("%(prefix)s%(levelname)s %(message)s"))
    logger = logging.getLogger("hvd_xai")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


# TensorFlow logs before its own log level counts, lines such as
#     I0000 00:00:1795 42 port.cc:153] oneDNN custom operations are on.
_CHATTER = re.compile(
    rb"I\d{4} .*|WARNING: All log messages before absl::InitializeLog\(\) is called are written to"
    rb" STDERR"
)

# Its warnings and errors, too, in either form that it has for them:
#     W0000 00:00:1795 42 gpu.cc:9] no GPU is found
#     2025-01-31 12:00:00.123456: E external/cuda.cc:51] Unable to register cuFFT factory
_OF_TENSORFLOW = re.compile(_CHATTER.pattern + rb"|[WE]\d{4} .*|\d{4}-\d\d-\d\d [\d:.]+: [IWE] .*")


@contextmanager
def quiet_start(*, is_root: bool = True) -> Iterator[None]:
    """Drops the INFO messages that TensorFlow logs while this block loads it.

    Warnings and errors are shown after the block.

    Args:
        is_root: whether TensorFlow's warnings and errors are shown as well. Other ranks drop them,
            because they would say the same once a rank, unless the block fails.
    """
    # TensorFlow writes to the file descriptor, which sys.stderr does not see; so the descriptor
    # itself leads to a file for the time being
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        has_started = False
        try:
            yield
            has_started = True
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            drops = _CHATTER if is_root or not has_started else _OF_TENSORFLOW
            for line in held.read().splitlines():
                if not drops.fullmatch(line):
                    os.write(2, line + b"\n")
