"""This rank's share of the probe: its rows, and the table of all ranks' rows."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hvd_xai.checkpoint.manifest import RankRows
from hvd_xai.checkpoint.probe_writer import probe_digest
from hvd_xai.probe.probe import Probe
from hvd_xai.ranks.shares import shares
from hvd_xai.ranks.world import World

BLOCK_BYTES = 32 * 2**20
BLOCK_SAMPLES = 64  # at most, so that the progress bar moves


@dataclass(frozen=True, slots=True)
class ProbeShare:
    """The rows of the probe that this rank explains. An elastic reset makes a new share.

    Attributes:
        probe: the examples; the same on every rank.
        rank: this rank.
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
        """Returns this rank's share among the ranks that there are now; no rank need wait."""
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
        """Returns the share with its digest, once all ranks are known to hold the same probe.

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
        """The first row of this rank."""
        return self.ranks[self.rank].start

    @property
    def stop(self) -> int:
        """The row behind the last one of this rank."""
        return self.ranks[self.rank].stop

    def __len__(self) -> int:
        """Returns the number of rows that this rank has, which may be none."""
        return self.stop - self.start

    def examples(
        self, start: int | None = None, stop: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns inputs, targets and sample ids of the share, or of some rows of the probe.

        Args:
            start: first row of the probe to return; the share's first by default.
            stop: row of the probe to stop before; the share's end by default.
        """
        rows = slice(self.start if start is None else start, self.stop if stop is None else stop)
        return self.probe.inputs[rows], self.probe.targets[rows], self.probe.sample_ids[rows]

    def blocks(self, sample_shape: tuple[int, ...], micro_batch: int) -> list[tuple[int, int]]:
        """Cuts the share into blocks of rows; returns a single empty block for an empty share.

        Args:
            sample_shape: shape of one example's values, which must fit into memory.
            micro_batch: number of examples that fills the hardware.

        Returns:
            First row of each block in the probe, and the row behind its last.
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
