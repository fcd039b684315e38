"""Computes stored explanations again, from what their manifests say, and compares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hvd_xai import provenance
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.reader import Explanation, Explanations
from hvd_xai.checkpoint.rows import encode
from hvd_xai.compute.attribute import Compute, Computed
from hvd_xai.compute.predict import Predict, Predicted
from hvd_xai.errors import CheckpointError
from hvd_xai.lookup.describe import describe, digest_sources
from hvd_xai.lookup.methods import load_method
from hvd_xai.lookup.resolve import resolve_one
from hvd_xai.lookup.restore import restore
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.packed_model import accept_packed
from hvd_xai.tracing.precision import Precision

TOLERANCE = 2.0**-10
"""Of a sample's largest attribution: two roundings to float16, in which attributions are stored.
Where hardware and versions are those that the explanation was made with, nothing differs at all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A sample's stored explanation beside the one computed again.

    Attributes:
        sample_id: id of the sample.
        difference: largest difference of an attribution, in units of the sample's largest
            magnitude; infinite where one of two is not finite and the other is, or is another.
        is_bit_equal: whether the same bytes would be stored again.
        prediction: the stored prediction, and the model's prediction now.
        score: the stored score, and the model's score now.
    """

    sample_id: int
    difference: float
    is_bit_equal: bool
    prediction: tuple[float, float]
    score: tuple[float, float]

    @property
    def matches(self) -> bool:
        """Whether attributions and score agree within `TOLERANCE`, and the prediction is the same.

        Values that are not a number match each other.
        """
        before, now = self.score
        close = bool(np.isclose(now, before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
        return (
            self.difference <= TOLERANCE
            and close
            and bool(np.isclose(*self.prediction, rtol=TOLERANCE, equal_nan=True))
        )


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Samples of one explanation that were computed again.

    Attributes:
        epoch: epoch of the explanation.
        method: name that the explanation is committed under.
        changed: versions and files that differ from those it was made with, by name: then, now.
        comparisons: a comparison for each sample.
    """

    epoch: int
    method: str
    changed: Mapping[str, tuple[str | None, str]]
    comparisons: Sequence[Comparison]


def recompute_epoch(
    explanations: Explanations,
    model: "keras.Model",
    sample_ids: Sequence[int],
    *,
    epoch: int | None = None,
    method: str | None = None,
) -> Iterator[Recomputed]:
    """Computes samples of an epoch's explanations again, one explanation after another.

    Args:
        explanations: explanations of the run.
        model: the model with the weights that were explained.
        sample_ids: ids of the samples to compute.
        epoch: the epoch; the newest by default.
        method: name that one explanation is committed under; or method of a user's own, whose
            explanations alone are computed, given as a file or `package.module:name`. All of the
            epoch's by default.

    Raises:
        CheckpointError: if there is no such explanation, or it cannot be computed again.
        RecipeError: if the method cannot be loaded.
    """
    if not explanations.epochs:
        raise CheckpointError(f"{explanations.path} holds no explanation yet")
    probe = explanations.probe()
    if probe is None:
        raise CheckpointError(
            f"{explanations.path} has no stored probe, so there is nothing to compute from"
        )
    number = explanations.epochs[-1] if epoch is None else epoch
    names, function = explanations.methods(number), None
    if method in names:
        names = [method]
    elif method is not None:
        function = load_method(method)
        its_name, _ = describe(function)
        names = [
            name
            for name in names
            if explanations.explanation(number, name).manifest.function == its_name
        ] or [its_name]  # which is not there: asking for it says what is
    for name in names or [""]:
        explanation = explanations.explanation(number, name)
        yield Recomputed(
            number,
            name,
            _changed_versions(explanation.manifest, function),
            recompute(model, explanation, probe, sample_ids, method=function),
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
        model: the model with the weights that were explained.
        explanation: the committed explanation.
        probe: the probe of its run.
        sample_ids: ids of the samples to compute.
        method: the method's function; looked up by the name in the manifest by default.

    Returns:
        A comparison for each sample.

    Raises:
        CheckpointError: if the model or the probe is another, a sample is not there, or the
            manifest does not say enough: a function or an array among the options is recorded by
            its name or digest alone.
    """
    manifest = explanation.manifest
    _check_same(model, explanation, probe)
    stored_rows = explanation.rows_of(sample_ids)
    inputs = probe.inputs(stored_rows)
    targets, ids = probe.column("targets")[stored_rows], probe.column("sample_id")[stored_rows]
    explained = accept_packed(model, probe.packing)
    computed, predicted = _compute(explained, explanation, (inputs, targets, ids), method)
    columns = {
        "sample_id": ids,
        "target": targets,
        "prediction": predicted.predictions,
        "score": predicted.scores,
        **computed.per_sample,
    }
    now, before = computed.attributions, explanation.attributions_of(ids)
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


def _check_same(model: "keras.Model", explanation: Explanation, probe: ProbeReader) -> None:
    """Raises `CheckpointError` if the explanation is of other weights or of another probe."""
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


def _compute(
    model: "keras.Model",
    explanation: Explanation,
    examples: tuple[np.ndarray, np.ndarray, np.ndarray],
    function: Callable[..., Any] | None,
) -> tuple[Computed, Predicted]:
    """Computes attributions and predictions in the way that the manifest says."""
    manifest = explanation.manifest
    inputs, targets, _ = examples
    micro_batch = micro_batches.propose_size(inputs.shape[1:])
    precision: Precision | None = "bfloat16" if manifest.precision == "bfloat16" else None
    method = restore(manifest.function, manifest.options, function)
    # Whether the probe has two classes alone shows in the stored dtype, not in a few samples.
    is_binary = np.dtype(manifest.dtypes["prediction"]).kind == "i"
    try:
        resolved = resolve_one(method)
        compute = Compute(model, resolved, micro_batch=micro_batch, precision=precision)
        predict = Predict(
            model, score=resolved.recorded_score, micro_batch=micro_batch, is_binary=is_binary
        )
        return compute(*examples), predict(inputs, targets)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{explanation.path} cannot be computed again: {error} An option that was a function of"
            f" your own is recorded by its name alone; the options are {plain(manifest.options)}"
        ) from error


def _changed_versions(
    manifest: Manifest, function: Callable[..., Any] | None
) -> dict[str, tuple[str | None, str]]:
    here = {**provenance.versions(), **({} if function is None else digest_sources(function))}
    return {
        name: (manifest.versions.get(name), now)
        for name, now in here.items()
        if manifest.versions.get(name) != now
    }


def _difference(before: np.ndarray, now: np.ndarray) -> float:
    """Returns the largest difference in units of the largest magnitude before, as `Comparison`."""
    finite = np.isfinite(before) & np.isfinite(now)
    if not np.array_equal(before[~finite], now[~finite], equal_nan=True):
        return float("inf")
    largest = float(np.abs(before[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(before[finite].astype(np.float64) - now[finite]).max(initial=0.0)) / largest
