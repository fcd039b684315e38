"""Computes stored explanations again, as their manifests describe them, and compares."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hvd_xai import provenance
from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.json_record import plain
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.reader import Explanations
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
"""Largest difference that passes, in units of a sample's largest attribution: two roundings to
float16, in which attributions are stored. On the same hardware and versions nothing differs at
all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares a sample's stored explanation with a new one.

    Attributes:
        sample_id: id of the sample.
        difference: largest difference between two attributions, in units of the sample's largest
            magnitude; infinite if values that are not finite differ.
        is_bit_equal: whether the new explanation would be stored as the same bytes.
        prediction: prediction that is stored, and prediction of the model now.
        score: score that is stored, and score of the model now.
    """

    sample_id: int
    difference: float
    is_bit_equal: bool
    prediction: tuple[float, float]
    score: tuple[float, float]

    @property
    def matches(self) -> bool:
        """Whether attributions and score agree within `TOLERANCE`, and the prediction is the same.

        NaN matches NaN.
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
    """Holds the comparisons of one explanation's samples.

    Attributes:
        epoch: epoch of the explanation.
        method: name that the explanation is committed under.
        changed: versions and digests of files that have changed since the explanation was made, by
            name; each is a pair of the old value and the new.
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
        model: model with the weights that were explained.
        sample_ids: ids of the samples to compute.
        epoch: epoch of the explanations; the newest if None.
        method: name that one explanation is committed under; or a user's own method, given as a
            file or `package.module:name`, to compute only the explanations by it. All explanations
            of the epoch are computed if None.

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
        ]
        # If it is not committed, asking for it raises an error that lists what is.
        names = names or [its_name]
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
    """Computes samples of an explanation again and compares them with the stored ones.

    Args:
        model: model with the weights that were explained.
        explanation: committed explanation.
        probe: probe of the explanation's run.
        sample_ids: ids of the samples to compute.
        method: function of the method; if None, it is looked up by its name in the manifest.

    Returns:
        A comparison for each sample.

    Raises:
        CheckpointError: if the model or the probe differs from the explained one, the explanation
            lacks a sample, or the method cannot be restored because one of its options is a
            function or an array, which manifests record only by name or digest.
    """
    manifest = explanation.manifest
    _check_same(model, explanation, probe)
    stored_rows = explanation.rows_of(sample_ids)
    inputs = probe.inputs(stored_rows)
    # The probe is stored in order of sample id, as explanations are: row for row they are alike.
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
    encoded = encode(manifest.dtype, now, rank=0, channels_first=manifest.channels_first, **columns)
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
    """Raises `CheckpointError` if the explanation belongs to other weights or another probe."""
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
    """Computes attributions and predictions as the manifest describes them."""
    manifest = explanation.manifest
    inputs, targets, _ = examples
    micro_batch = micro_batches.propose_size(inputs.shape[1:])
    precision: Precision | None = "bfloat16" if manifest.precision == "bfloat16" else None
    method = restore(manifest.function, manifest.options, function)
    # A few samples do not show whether the whole probe has only two classes; the stored dtype does.
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
    """Returns the largest difference, in units of the largest magnitude of the stored values."""
    finite = np.isfinite(before) & np.isfinite(now)
    if not np.array_equal(before[~finite], now[~finite], equal_nan=True):
        return float("inf")
    largest = float(np.abs(before[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(before[finite].astype(np.float64) - now[finite]).max(initial=0.0)) / largest
