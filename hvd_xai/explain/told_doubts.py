"""Says on the root, once a method and epoch, what speaks against believing an explanation."""

import logging
from dataclasses import replace

from hvd_xai.analysis.doubts import Tally, tell_doubts
from hvd_xai.checkpoint.manifest import Header

log = logging.getLogger(__name__)


class ToldDoubts:
    """Tells doubts about explanations, and remembers what it has told.

    Example:
        >>> told = ToldDoubts()
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, header: Header, tally: Tally, *, is_root: bool) -> Header:
        """Logs the doubts of an explanation on the root, and returns its header with them.

        Args:
            header: header of the explanation.
            tally: doubts that the ranks have counted together.
            is_root: whether this rank is the root.
        """
        doubts: dict[str, int] = {doubt: count for doubt, count in tally.counts.items() if count}
        # That a score is of class 1 follows from the settings, so it is said at one epoch alone.
        news = {
            doubt: count
            for doubt, count in doubts.items()
            if doubt != "other class" or header.method not in self._told
        }
        self._told.add(header.method)
        lines = tell_doubts(news, header.n_samples, tally.largest_gap)
        if lines and is_root:
            log.warning("%s at epoch %d: %s.", header.method, header.epoch, ". ".join(lines))
        return replace(header, doubts=doubts)
