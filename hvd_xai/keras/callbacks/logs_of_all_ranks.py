"""Computes what the ranks have logged together, with and without a metric behind it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from hvd_xai.keras.collectives import reduce_values
from hvd_xai.keras.horovod_names import Sum
from hvd_xai.keras.metric_states import Results, numbers_in
from hvd_xai.ranks.world import World

# A step that Keras compiles, and the metric itself, may compute one result with other roundings.
_ROUNDING = 1e-5


class Part(NamedTuple):
    """The logs of training or of validation.

    Attributes:
        prefix: beginning of the names, "val_" for validation.
        results: results of the metrics.
        n_rows: number of rows of this rank's last batch; 0 if it is not known.
    """

    prefix: str
    results: Results
    n_rows: int


def logs_of_all_ranks(
    world: World, logs: Mapping[str, Any], parts: Sequence[Part]
) -> dict[str, float | np.ndarray]:
    """Returns the numbers and arrays among the logs over all ranks.

    Collective: every rank must call this.

    Args:
        world: ranks that have logged.
        logs: values that this rank has logged, by name.
        parts: parts of the logs; names belong to the last part whose prefix they have.

    Raises:
        ValueError: on all ranks, if a rank has logged a name that another has not, or another
            shape under it.
    """
    mine = numbers_in(logs)
    together: dict[str, np.ndarray] = {}
    told: dict[str, tuple[list[int], str, int]] = {}
    for name, value in mine.items():
        part = [part for part in parts if name.startswith(part.prefix)][-1]
        metric = name.removeprefix(part.prefix)
        digest = ""
        if _is_result(value, part.results.mine.get(metric)):
            together[name] = part.results.together[metric]
            digest = xxhash.xxh3_64_hexdigest(together[name].tobytes())
        told[name] = (list(value.shape), digest, part.n_rows)
    ranks = world.allgather("comparing the logs", told)
    _compare(world, ranks)

    averaged, weights = [], []
    for name in sorted(mine):
        digests = {digest for _, digest, _ in (theirs[name] for theirs in ranks)}
        # A digest of all ranks: the value was a metric's result on all of them, and follows from
        # the combined states. Results of one that keeps more than states differ between ranks.
        if len(digests) > 1 or not any(digests):
            averaged.append(name)
            weights.append([theirs[name][2] for theirs in ranks])
    values = [
        np.asarray(mine[name] * _share(rows, world.rank))
        for name, rows in zip(averaged, weights, strict=True)
    ]
    sums = reduce_values(values, op=Sum, name="hvd_xai.logs")
    for name, rows, total in zip(averaged, weights, sums, strict=True):
        # Divided last, so that a value that all ranks have stays as it is.
        together[name] = np.asarray(total / (sum(rows) if all(rows) else world.size))
    return {name: float(value) if value.ndim == 0 else value for name, value in together.items()}


def _is_result(logged: np.ndarray, result: np.ndarray | None) -> bool:
    return (
        result is not None
        and result.shape == logged.shape
        and np.allclose(logged, result, rtol=_ROUNDING, atol=0, equal_nan=True)
    )


def _share(n_rows: Sequence[int], rank: int) -> int:
    """Returns how much a rank weighs: its rows, or 1 where a rank's rows are not known."""
    return n_rows[rank] if all(n_rows) else 1


def _compare(world: World, ranks: Sequence[Mapping[str, tuple[list[int], str, int]]]) -> None:
    """Raises on all ranks if they have logged different names or shapes.

    Collective: every rank must call this.
    """
    for rank, theirs in enumerate(ranks):
        for has, lacks in ((0, rank), (rank, 0)):
            names = sorted({*ranks[has]} - {*ranks[lacks]})
            if names:
                world.agree(
                    "comparing the logs",
                    ValueError(
                        f"rank {has} logs {', '.join(map(repr, names))} and rank {lacks} does not."
                        " Log the same names, as numbers, on every rank; a callback that logs on"
                        " one rank alone belongs behind MetricAverageCallback."
                    ),
                )
        for name in theirs:
            shapes = [tuple(ranks[0][name][0]), tuple(theirs[name][0])]
            if shapes[0] != shapes[1]:
                world.agree(
                    "comparing the logs",
                    ValueError(
                        f"'{name}' has the shape {shapes[0]} on rank 0 and {shapes[1]} on rank"
                        f" {rank}; log one shape on every rank"
                    ),
                )
