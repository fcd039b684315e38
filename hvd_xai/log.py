"""Log records that say which rank they come from."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class _OfRank(logging.Filter):
    """Adds the rank to a record; lets INFO pass from the root only, WARNING and above from every
    rank.
    """

    def __init__(self, rank: int, size: int, host: str) -> None:
        super().__init__()
        self._prefix = f"[rank {rank}/{size} {host}] " if size > 1 else ""
        self._is_root = rank == 0

    def filter(self, record: logging.LogRecord) -> bool:
        record.prefix = self._prefix
        return self._is_root or record.levelno >= logging.WARNING


def configure(
    rank: int = 0, size: int = 1, host: str = "localhost", level: int = logging.INFO
) -> None:
    """Sends the library's log records to standard error, each with its rank.

    Calling it again replaces the handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_OfRank(rank, size, host))
    handler.setFormatter(logging.Formatter("%(prefix)s%(levelname)s %(message)s"))
    logger = logging.getLogger("hvd_xai")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


# TensorFlow greets before its log level counts, with lines such as "I0000 00:00:1795 42
# port.cc:153] oneDNN custom operations are on."
_CHATTER = re.compile(
    rb"I\d{4} .*|WARNING: All log messages before absl::InitializeLog\(\) is called are written to"
    rb" STDERR"
)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Leaves out what TensorFlow says at INFO level while it is loaded inside this block; warnings
    and errors are shown after it.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().splitlines():
                if not _CHATTER.fullmatch(line):
                    os.write(2, line + b"\n")
