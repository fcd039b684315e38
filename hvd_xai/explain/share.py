"""Shares the rows of the probe out to the ranks."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hvd_xai.checkpoint.manifest import RankRows
from hvd_xai.checkpoint.probe_writer import probe_digest
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.shares import shares
from hvd_xai.ranks.world import World

BLOCK_BYTES = 32 * 2**20
# At most this many, so that the progress bar moves.
BLOCK_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class ProbeShare:
    """The rows of the probe that this rank explains; an elastic reset makes a new share.

    Attributes:
        probe: examples of all ranks; the same on every rank.
        rank: number of this rank.
        ranks: rows of every rank, in the order of ranks.
        digest: digest of the whole probe; empty until the ranks have agreed on it.

    Example:
        >>> share = ProbeShare.cut(probe, world)
        >>> len(share), share.blocks((8, 8, 1), micro_batch=3)
        (4, [(0, 4)])
    """

    probe: Probe
    rank: int
    ranks: tuple[RankRows, ...]
    digest: str = ""

    @classmethod
    def cut(cls, probe: Probe, world: World) -> "ProbeShare":
        """Returns this rank's share of a probe; needs no communication."""
        edges = shares(probe, world.size)
        return cls(
            probe,
            world.rank,
            tuple(
                RankRows(rank, world.hosts[rank], edges[rank], edges[rank + 1])
                for rank in range(world.size)
            ),
        )

    def agree(self, world: World) -> "ProbeShare":
        """Returns the share with its digest, after checking that all ranks hold the same probe.

        Collective: every rank must call this.

        Raises:
            PeerError: on all ranks, if an input of any share is not finite.
            ValueError: on all ranks, if their probes differ.
        """
        with world.together("checking the probe"):
            self.probe.check_finite(self.start, self.stop)
            digest = probe_digest(self.probe)
        world.same(
            "comparing the probes",
            digest,
            "the ranks were given different probes; load the same one on every rank.",
        )
        return replace(self, digest=digest)

    @property
    def start(self) -> int:
        """First row of this rank."""
        return self.ranks[self.rank].start

    @property
    def stop(self) -> int:
        """Row after the last row of this rank."""
        return self.ranks[self.rank].stop

    def __len__(self) -> int:
        """Returns the number of rows that this rank has, which may be none."""
        return self.stop - self.start

    def examples(
        self, start: int | None = None, stop: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns inputs, targets and sample ids of the share, or of a range of the probe's rows.

        Args:
            start: first row of the range; the first row of the share if None.
            stop: row after the range; the end of the share if None.
        """
        rows = slice(self.start if start is None else start, self.stop if stop is None else stop)
        return self.probe.inputs[rows], self.probe.targets[rows], self.probe.sample_ids[rows]

    def blocks(self, sample_shape: tuple[int, ...], micro_batch: int) -> list[tuple[int, int]]:
        """Cuts the share into blocks of rows; an empty share gives a single empty block.

        Args:
            sample_shape: shape of the values of one example; a block of them fits into memory.
            micro_batch: number of examples that go through the model at once.

        Returns:
            The first row of each block in the probe, and the row after its last.
        """
        # A block is several whole micro-batches, and one at least, however large its examples are:
        #
        #   start |--micro-batch--|--micro-batch--|--mi--| stop
        #         |------------ step -------------|-rest-|
        whole = min(micro_batch, BLOCK_SAMPLES)
        fitting = BLOCK_BYTES // (4 * whole * max(1, math.prod(sample_shape)))
        step = whole * max(1, min(fitting, BLOCK_SAMPLES // whole))
        blocks = [
            (start, min(start + step, self.stop)) for start in range(self.start, self.stop, step)
        ]
        return blocks or [(self.start, self.start)]
