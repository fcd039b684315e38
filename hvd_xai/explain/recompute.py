"""Computes a stored explanation again, from what its manifest says, and compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hvd_xai import provenance
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.reader import Explanation
from hvd_xai.checkpoint.rows import encode
from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict
from hvd_xai.errors import CheckpointError
from hvd_xai.lookup.resolve import resolve_one
from hvd_xai.lookup.restore import restore
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import of_rows
from hvd_xai.tracing.precision import Precision

TOLERANCE = 2.0**-10
"""Of a sample's largest attribution: two roundings to float16, in which attributions are stored.
Where hardware and versions are those that the explanation was made with, nothing differs at all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A sample's stored explanation held against the one computed again.

    Attributes:
        sample_id: of the sample.
        difference: the largest difference of an attribution, in units of the sample's largest
            magnitude; infinite where one is not finite and the other is, or is another.
        is_bit_equal: whether the same bytes would be stored again.
        prediction: the stored one, and that of the model now.
        score: likewise.
    """

    sample_id: int
    difference: float
    is_bit_equal: bool
    prediction: tuple[float, float]
    score: tuple[float, float]

    @property
    def matches(self) -> bool:
        """Whether attributions and score are the stored ones within `TOLERANCE`, and the prediction
        is the same.
        """
        before, now = self.score
        close = bool(np.isclose(now, before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
        return (
            self.difference <= TOLERANCE
            and close
            and bool(np.isclose(*self.prediction, rtol=TOLERANCE, equal_nan=True))
        )


def recompute(
    model: "keras.Model",
    explanation: Explanation,
    probe: ProbeReader,
    sample_ids: Sequence[int],
    *,
    method: Callable[..., Any] | None = None,
) -> list[Comparison]:
    """Computes samples of an explanation again and compares them with what is stored.

    Args:
        model: with the weights that were explained.
        explanation: as it was committed.
        probe: the probe of its run.
        sample_ids: what to compute.
        method: the method; looked up by its own name, which is in the manifest, if left out.

    Returns:
        A comparison for each sample.

    Raises:
        CheckpointError: if the model or the probe is another, a sample is not there, or the
            manifest does not say enough: a function or an array among the options is recorded by
            its name or digest alone.
    """
    manifest = explanation.manifest
    weights = provenance.weights_digest(model)
    if weights != manifest.weights_digest:
        raise CheckpointError(
            f"{explanation.path} explains other weights than this model has: their digest is"
            f" {manifest.weights_digest}, the model's {weights}. Give the model as it was saved at"
            " that epoch."
        )
    if probe.digest != manifest.probe_digest:
        raise CheckpointError(
            f"{explanation.path} explains another probe, {manifest.probe_digest}, than is stored"
            f" beside it, {probe.digest}"
        )
    stored_rows = explanation.rows_of(sample_ids)
    inputs = probe.inputs(stored_rows)
    targets, ids = probe.column("targets")[stored_rows], probe.column("sample_id")[stored_rows]
    micro_batch = micro_batches.fitting(inputs.shape[1:])
    explained = of_rows(model, probe.packing)
    precision: Precision | None = "bfloat16" if manifest.precision == "bfloat16" else None
    function = restore(manifest.function, manifest.options, method)
    try:
        resolved = resolve_one(function)
        compute = Compute(explained, resolved, micro_batch=micro_batch, precision=precision)
        is_binary = np.dtype(manifest.dtypes["prediction"]).kind == "i"  # only then does it matter
        predict = Predict(
            explained,
            score=resolved.recorded_score,
            micro_batch=micro_batch,
            is_binary=is_binary,
        )
        computed, predicted = compute(inputs, targets, ids), predict(inputs, targets)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{explanation.path} cannot be computed again: {error} An option that was a function of"
            f" your own is recorded by its name alone; the options are {plain(manifest.options)}"
        ) from error
    now, before = computed.attributions, explanation.attributions_of(ids)
    columns = {
        "sample_id": ids,
        "target": targets,
        "prediction": predicted.predictions,
        "score": predicted.scores,
        **computed.per_sample,
    }
    encoded = encode(manifest.dtype, now, rank=0, **columns)
    stored = {
        name: explanation.column(name)[stored_rows]
        for name in ("content_hash", "prediction", "score")
    }
    return [
        Comparison(
            sample_id=int(ids[index]),
            difference=_difference(before[index], now[index]),
            is_bit_equal=bool(encoded["content_hash"][index] == stored["content_hash"][index]),
            prediction=(float(stored["prediction"][index]), float(predicted.predictions[index])),
            score=(float(stored["score"][index]), float(predicted.scores[index])),
        )
        for index in range(len(ids))
    ]


def _difference(before: np.ndarray, now: np.ndarray) -> float:
    finite = np.isfinite(before) & np.isfinite(now)
    if not np.array_equal(before[~finite], now[~finite], equal_nan=True):
        return float("inf")
    largest = float(np.abs(before[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(before[finite].astype(np.float64) - now[finite]).max(initial=0.0)) / largest
