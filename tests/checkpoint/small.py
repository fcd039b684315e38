"""Small explanations for the tests of checkpoints."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvd_xai.checkpoint.epochs import EpochStack
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.manifest import Header, RankRows
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.checkpoint.rows import encode, row_dtype
from hvd_xai.checkpoint.writer import Writer
from hvd_xai.protocols import AttributedTo, Json, ScoreFacts
from hvd_xai.storage import foreign_arrays

SHAPES: tuple[tuple[int, ...], ...] = ((), (5,), (8, 8), (30, 29, 3), (2, 3, 4, 2))
EXPORTED_EPOCHS = (2, 3)
"""Epochs of `integrated_gradients` in the fixture `to_export`."""


def make_attributions(n_samples: int, sample_shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns attributions as small as those of deep models.

    Plain float16 would flush many of them to zero.
    """
    return (
        np.random.default_rng(seed)
        .normal(scale=1e-6, size=(n_samples, *sample_shape))
        .astype(np.float32)
    )


def make_rows(attributions: np.ndarray, *, rank: int = 0, first: int = 0) -> np.ndarray:
    """Packs attributions; sample ids are 3 times the row number, which starts at `first`."""
    rows = np.arange(first, first + len(attributions))
    dtype = row_dtype(attributions.shape[1:], per_sample={"convergence_delta": "<f4"})
    return encode(
        dtype,
        attributions,
        rank=rank,
        sample_id=3 * rows,
        label=rows % 7,
        target=rows % 10,
        prediction=rows % 3,
        score=np.sqrt(rows).astype(np.float32),
        convergence_delta=np.sin(rows).astype(np.float32),
    )


def make_rows_with_errors(attributions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packs attributions with standard errors of a tenth; returns the rows and the errors."""
    n, errors = np.arange(len(attributions)), np.abs(attributions) / 10
    dtype = row_dtype(attributions.shape[1:], per_sample={"standard_errors": "<f4"})
    rows = encode(
        dtype,
        attributions,
        rank=0,
        sample_id=n,
        target=n % 3,
        prediction=n % 3,
        score=np.ones(len(n), np.float32),
        standard_errors=errors,
    )
    return rows, errors


def make_header(
    n_samples: int,
    sample_shape: tuple[int, ...],
    *,
    epoch: int = 0,
    method: str = "integrated_gradients",
    function: str = "",
    world_size: int = 1,
    weights_digest: str = "w0",
    metrics: Mapping[str, float] | None = None,
    options: Mapping[str, Json] | None = None,
    attributed_to: AttributedTo | None = None,
    signed: bool | None = None,
    score_facts: ScoreFacts | None = None,
) -> Header:
    edges = [n_samples * rank // world_size for rank in range(world_size + 1)]
    return Header(
        run="test",
        epoch=epoch,
        step=10 * epoch,
        method=method,
        function=function,
        options=options or {"n_steps": 50, "window": (1, 2.5), "baseline": None},
        n_samples=n_samples,
        sample_shape=sample_shape,
        world_size=world_size,
        ranks=tuple(
            RankRows(rank, f"host{rank}", edges[rank], edges[rank + 1])
            for rank in range(world_size)
        ),
        weights_digest=weights_digest,
        probe_digest="p0",
        versions={"hvd_xai": "0.1.0"},
        metrics=metrics or {},
        attributed_to=attributed_to,
        signed=signed,
        score_facts=score_facts or ScoreFacts(),
    )


def begin(explanations_dir: Path, rows: np.ndarray, **header: object) -> Writer:
    """Starts a checkpoint for `rows`; `header` is given to `make_header`."""
    explanations_dir.mkdir(parents=True, exist_ok=True)
    return Writer(
        explanations_dir,
        make_header(len(rows), rows.dtype["attributions"].shape, **header),  # type: ignore[arg-type]  # the caller's
        rows.dtype,
    )


def write(explanations_dir: Path, rows: np.ndarray, **header: object) -> Explanation:
    """Commits `rows` in one block."""
    writer = begin(explanations_dir, rows, **header)
    writer.append(rows)
    return Explanation(writer.commit())


def read_plain(directory: Path) -> np.ndarray:
    """Returns an array as the Zarr library itself reads it, manifest or no manifest."""
    if foreign_arrays.zarr is None:
        import tensorstore  # type: ignore[import-not-found,unused-ignore]  # only where there is no zarr 3

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{directory}/"}}
        return np.asarray(tensorstore.open(spec).result().read().result())
    return np.asarray(foreign_arrays.zarr.open_array(directory, mode="r")[:])


def files_under(directory: Path) -> set[str]:
    """Returns the names of all files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def stack_all(explanations: Explanations) -> list[EpochStack]:
    """Returns all explanations of each method over its epochs."""
    return [explanations.stack(method) for method in explanations.epochs_by_method]
