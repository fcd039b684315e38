"""What a probe says of its inputs, without the inputs themselves."""

from dataclasses import dataclass

import numpy as np

from hvd_xai.probe.packing import Packing
from hvd_xai.probe.window import Window
from hvd_xai.protocols import Channels


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """Describes the inputs of a probe, so that a reader can tell which kind of data they are.

    Args:
        shape: shape of one input.
        dtype: dtype of the inputs.
        feature_names: names of the values of one input, in order; empty without names.
        vocabulary: word of each token id; empty unless the inputs are texts.
        packing: how several inputs lie in one row; None for a model of one input.
        window: values of the inputs that are drawn darkest and brightest; None if not recorded.
        kind: name of the kind of data, if the probe says it; None to find it from the other facts.
        channels: where an input has its channels, as the model that was explained said; None if
            that is not known.

    Example:
        >>> ProbeFacts((3,), np.dtype("f4"), feature_names=("age", "income", "debt")).is_named
        True
        >>> ProbeFacts((28, 28, 1), np.dtype("u1")).is_named
        False
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    feature_names: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    packing: Packing | None = None
    window: Window | None = None
    kind: str | None = None
    channels: Channels | None = None

    @property
    def is_named(self) -> bool:
        """Whether every value of one input has a name of its own."""
        return bool(self.feature_names) and self.shape == (len(self.feature_names),)
