"""Ends the job when a rank dies of an error that nobody has caught."""

import os
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

from hvd_xai.errors import is_agreed
from hvd_xai.log import printable_lines
from hvd_xai.ranks.launcher import is_elastic

if TYPE_CHECKING:
    from hvd_xai.ranks.world import World


def end_job_on_uncaught_error(world: "World") -> None:
    """Ends the job when this rank dies of an error that other ranks do not know of.

    They would wait for this rank for ever.
    """
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # every rank is on its way out by itself, and one report is enough
        if is_agreed(error) or (world.size == 1 and not is_elastic(os.environ)):
            if world.is_root and show is not sys.__excepthook__:
                show(kind, error, trace)
            elif world.is_root:
                lines = "".join(traceback.format_exception(kind, error, trace))
                sys.stderr.write(printable_lines(lines))
            world.finish(error)
            return
        lines = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(printable_lines(f"[rank {world.rank}/{world.size} {world.host}] {lines}"))
        world.finish(error)
        world.abort(f"uncaught {kind.__name__}: {error}", 1)

    sys.excepthook = hook
