"""Finds attributions that are NaN or infinite, and says of which samples they are and why."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hvd_xai.checkpoint.manifest import Header
from hvd_xai.ranks.world import World

log = logging.getLogger(__name__)

_N_NAMED = 5


@dataclass(slots=True)
class NotFinite:
    """Counts the samples that have an attribution which is NaN or infinite.

    Attributes:
        n_samples: number of such samples.
        n_scores: number of them whose score is not finite either.
        sample_ids: the lowest sample ids of them, a few.

    Example:
        >>> tally = NotFinite(n_samples=1, sample_ids=[7])
        >>> NotFinite.of_all([tally.numbers(), NotFinite(1, 0, [3]).numbers()]).sample_ids
        [3, 7]
    """

    n_samples: int = 0
    n_scores: int = 0
    sample_ids: list[int] = field(default_factory=list)

    def add(self, rows: np.ndarray) -> None:
        """Counts further samples.

        Args:
            rows: rows of a checkpoint, whose float16 keeps what is not finite.
        """
        attributions = rows["attributions"]
        is_bad = ~np.isfinite(attributions).all(axis=tuple(range(1, attributions.ndim)))
        self.n_samples += int(np.count_nonzero(is_bad))
        self.n_scores += int(np.count_nonzero(~np.isfinite(rows["score"][is_bad])))
        self.sample_ids = sorted([*self.sample_ids, *rows["sample_id"][is_bad].tolist()])[:_N_NAMED]

    def numbers(self) -> list[int]:
        """Returns the tally as numbers that the ranks can send each other."""
        return [self.n_samples, self.n_scores, *self.sample_ids]

    @classmethod
    def of_all(cls, numbers: Sequence[Sequence[int]]) -> "NotFinite":
        """Returns the tally of all ranks from the `numbers` of each."""
        return cls(
            sum(of_rank[0] for of_rank in numbers),
            sum(of_rank[1] for of_rank in numbers),
            sorted(sample_id for of_rank in numbers for sample_id in of_rank[2:])[:_N_NAMED],
        )

    def warn(self, header: Header, world: World) -> None:
        """Warns on the root, once for all ranks, if there are such samples.

        Collective: every rank must call this.
        """
        numbers = world.allgather("gathering what is not finite", self.numbers())
        warning = NotFinite.of_all(numbers).tell(header)
        if warning and world.is_root:
            log.warning(warning)

    def tell(self, header: Header) -> str:
        """Says how many samples of an explanation these are, which, and what may be the cause.

        It is empty if there is none.
        """
        if self.n_samples == 0:
            return ""
        named = ", ".join(map(str, self.sample_ids))
        end = ", ..." if self.n_samples > len(self.sample_ids) else "."
        return (
            f"{header.method} at epoch {header.epoch}: {self.n_samples} of {header.n_samples}"
            f" samples have attributions that are NaN or infinite, with sample ids {named}{end}"
            f" {self._cause(header)}"
        )

    def _cause(self, header: Header) -> str:
        if self.n_scores == self.n_samples:
            return (
                "Their scores are not finite either: the model itself gives such values, as it does"
                " when its weights have diverged, or when its score is the logarithm of 0."
            )
        cause = (
            "Their scores are finite, so it is a slope that is not: of a division, a root or a"
            " logarithm at 0, such as UnitNormalization of zeros"
        )
        if "baseline" in header.options:
            other = ", such as baseline='mean'" if header.options["baseline"] == "zero" else ""
            return (
                f"{cause}; or the model has no value for something it is shown, as the mean of a"
                " text whose words are all taken away. Bind another baseline= to the"
                f" method{other}."
            )
        return f"{cause}, or of a value beyond the range of float16 in a model of mixed precision."
