"""Compiles methods and scores of a model once, for the whole training."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import cast, get_args

import keras
import numpy as np

from hvd_xai.compute.attribute import Compute
from hvd_xai.compute.predict import Predict, Predicted
from hvd_xai.explain.share import ProbeShare
from hvd_xai.lookup.resolve import Method
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Channels, Json, Score, ScoreFacts
from hvd_xai.tracing import micro_batches
from hvd_xai.tracing.channels import find_channels
from hvd_xai.tracing.compiled import read_signature
from hvd_xai.tracing.packed_model import accept_packed
from hvd_xai.tracing.precision import Precision

log = logging.getLogger(__name__)

N_MEASURED = 8
"""Number of examples at the start of the probe on which the error of a lower precision is measured.
It does not depend on the number of ranks, so that the error does not either."""


class CompiledMethods:
    """Compiles methods for a model and a probe, and keeps them across epochs and elastic resets.

    Args:
        model: built Keras model.
        probe: examples that will be explained.
        methods: resolved methods.
        precision: `bfloat16` to explain in it; None for the model's own precision.

    Attributes:
        probe: examples that will be explained.
        model: model to explain; it takes packed rows if the probe packs several inputs into one.
        computes: compiled methods by the name that they are committed under, in the given order.

    Raises:
        ValueError: if there is no such precision.
    """

    def __init__(
        self,
        model: "keras.Model",
        probe: Probe,
        methods: Sequence[Method],
        *,
        precision: Precision | None = None,
    ) -> None:
        self.probe = probe
        self.model = accept_packed(model, probe.packing)
        micro_batch = micro_batches.propose_size(probe.inputs.shape[1:])
        compiled = partial(Compute, self.model, micro_batch=micro_batch)
        self.computes: dict[str, Compute] = {
            method.name: compiled(method, precision=precision) for method in methods
        }
        # The same methods in the model's own precision show how far the lower precision is off.
        self._exact: dict[str, Compute] = (
            {} if precision is None else {method.name: compiled(method) for method in methods}
        )
        targets = probe.targets
        is_binary = np.issubdtype(targets.dtype, np.integer) and bool(
            np.isin(targets, (0, 1)).all()
        )
        # Several methods may explain one score, which takes one pass through the model.
        self._predicts: dict[str | Score, Predict] = {
            score: Predict(self.model, score=score, micro_batch=micro_batch, is_binary=is_binary)
            for score in dict.fromkeys(method.recorded_score for method in methods)
        }

    def check(self, share: ProbeShare) -> None:
        """Compiles every method, and finds all errors that show without running the model.

        Raises:
            TypeError: if a method does not fit the model; the message names the method.
            ValueError: if a method, the inputs or the targets do not fit the model.
        """
        examples = share.examples()
        for compute in self.computes.values():
            with compute.method.named_in_errors():
                compute.check(*examples)
        for predict in self._predicts.values():
            predict.check(*examples)

    def channels(self, method: Method) -> Channels | None:
        """Returns where the inputs have their channels, as the method was told or the model tells.

        It is None if neither says so.
        """
        told = method.options.get("channels")
        for word in get_args(Channels):
            if told == word:
                return cast(Channels, word)
        shape, dtype, _ = read_signature(self.probe.inputs, self.probe.targets)
        return find_channels(self.model, shape, dtype)

    def predict(self, share: ProbeShare) -> dict[str | Score, Predicted]:
        """Returns predictions and scores of the share's rows, for each score that is explained."""
        predicted = {}
        for score, predict in self._predicts.items():
            blocks = []
            for block in share.blocks(share.probe.inputs.shape[1:], predict.micro_batch):
                inputs, targets, _ = share.examples(*block)
                blocks.append(predict(inputs, targets))
            predicted[score] = Predicted(
                np.concatenate([block.predictions for block in blocks]),
                np.concatenate([block.scores for block in blocks]),
            )
        return predicted

    def score_facts(self, score: str | Score) -> ScoreFacts:
        """Returns unit and class of a score that is explained. Call it after `check`."""
        return self._predicts[score].score_facts

    def explained_facts(self, method: Method) -> ScoreFacts:
        """Returns unit and class of the score that attributions come from; unknown without one.

        The score of a method without one stands beside its attributions, and explains nothing.
        """
        return ScoreFacts() if method.score is None else self.score_facts(method.score)

    def precision_errors(self, name: str, share: ProbeShare) -> tuple[float, float]:
        """Measures how a lower precision changes the attributions of the probe's first examples.

        Args:
            name: name that the method is committed under.
            share: this rank's share; the first examples that lie in it are measured.

        Returns:
            The squared L2 distance between the attributions in either precision, and the squared
            L2 norm of the attributions in the model's own precision.
        """
        stop = min(share.stop, N_MEASURED)
        if share.start >= stop:
            return 0.0, 0.0
        examples = share.examples(stop=stop)
        got = self.computes[name](*examples).attributions.astype(np.float64)
        want = self._exact[name](*examples).attributions.astype(np.float64)
        return float(((got - want) ** 2).sum()), float((want**2).sum())

    def describe(self) -> dict[str, Json]:
        """Returns the options of each method, beside its function's name if it has another."""
        methods: dict[str, Json] = {}
        for name, compute in self.computes.items():
            options, function = dict(compute.method.options), compute.method.function
            methods[name] = options if function == name else {function: options}
        return methods

    def tell_without_names(self) -> None:
        """Logs which methods should say what they attribute to. Call it after `check`."""
        for name in self.without_names():
            log.info(
                "method '%s' does not say what it attributes to, so the probe's names are not"
                " shown beside its attributions. If they belong to the values of the inputs,"
                " let it return Attributed(attributions, attributed_to='inputs').",
                name,
            )

    def without_names(self) -> list[str]:
        """Returns methods that may attribute to features or words with names, but do not say so.

        Names of features and words are shown only beside the attributions of methods that say that
        they attribute to the inputs. Call it after `check`.
        """
        has_names = bool(self.probe.feature_names or self.probe.vocabulary)
        return [
            name
            for name, compute in self.computes.items()
            if has_names
            and compute.attributed_to is None
            and compute.sample_shape == self.probe.inputs.shape[1:]
        ]
