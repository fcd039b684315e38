"""Log records that say which rank they come from."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class _RankFilter(logging.Filter):
    """Adds the rank to each record, and drops INFO records of all ranks but the root."""

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
    handler.setFormatter(logging.Formatter("%(prefix)s%(levelname)s %(message)s"))
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
