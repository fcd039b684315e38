"""Holds rows that their targets tell apart, for tests that share rows out."""

from typing import Any

import keras
import numpy as np

from hvd_xai.ranks.world import World


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Batches of two rows."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x) // 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(2 * index, 2 * index + 2)
        return self.x[rows], self.y[rows]


def draw_rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(n, 3)).astype("float32"), np.arange(n, dtype="float32")[:, None]


def gather_targets(world: World, batches: list[Any]) -> list[float]:
    """Returns the targets of all ranks' rows that count, rank after rank."""
    mine = [
        float(value)
        for _, y, *weights in batches
        for value in y[weights[0] > 0 if weights else slice(None)].reshape(-1)
    ]
    of_ranks: Any = world.allgather("testing", mine)
    return [value for values in of_ranks for value in values]
