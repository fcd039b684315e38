"""The contracts that the rooms share. Nothing here needs TensorFlow or MPI."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
else:
    Json: TypeAlias = object  # an alias of itself cannot be checked at run time


@runtime_checkable
class Score(Protocol):
    """The scalar per example that is explained: `(outputs, targets) -> [n]`, float32.

    One with an option `at` gets there what the model returns for the examples themselves;
    `hvd_xai.scores` says when.
    """

    def __call__(self, outputs: "tf.Tensor", targets: "tf.Tensor", /) -> "tf.Tensor":
        """Returns one scalar an example from the model's outputs `[n, ...]` and the targets
        `[n]`.
        """


@runtime_checkable
class Baseline(Protocol):
    """The reference inputs of a batch.

    `inputs -> [n, ...]`, or `[b, n, ...]` where each input has several.

    One with an option `ids` gets the sample ids; `hvd_xai.baselines.references` is how a method
    asks it.
    """

    def __call__(self, inputs: "tf.Tensor", /) -> "tf.Tensor":
        """Returns the references of the inputs `[n, ...]`, of their dtype."""


class Attributed(NamedTuple):
    """What a method returns when it knows more than the attributions.

    Attributes:
        attributions: `[n, ...]`.
        per_sample: one value an example by name, such as `convergence_delta`; each lands in the
            checkpoint as an array `[sample]`.
    """

    attributions: "tf.Tensor"
    per_sample: "Mapping[str, tf.Tensor]"


@runtime_checkable
class Attribution(Protocol):
    """A method: attributes a model's score to its inputs, or to a layer's outputs.

    Pure TensorFlow and traceable; the first axis of everything is examples, and no example depends
    on another. It knows no ranks, files or pictures. Options are keyword-only, and bound with
    `functools.partial`, so that name and options can be read back from it.
    """

    def __call__(
        self,
        model: "keras.Model",
        inputs: "tf.Tensor",
        targets: "tf.Tensor",
        /,
        *,
        ids: "tf.Tensor",
    ) -> "tf.Tensor | Attributed":
        """Returns the attributions of `inputs` `[n, ...]` for `targets` `[n]`; `ids` `[n]` are the
        sample ids that seed randomness.
        """


Methods: TypeAlias = Sequence[Attribution | str] | Mapping[str, Attribution | str]
"""Methods, or their names, to explain with; or a mapping from what each is committed under, so that
one may be there several times."""


@runtime_checkable
class Progress(Protocol):
    """Where long work says how far it is: a bar on the terminal, or nothing."""

    def start(self, task: str, total: int) -> None:
        """Begins a task of `total` steps; a task that was begun before is over."""

    def advance(self, steps: int = 1) -> None:
        """Says that `steps` more are done."""

    def say(self, line: str) -> None:
        """Shows one line of text above the bar."""


class Silent:
    """The `Progress` that shows nothing."""

    def start(self, task: str, total: int) -> None:
        """Shows nothing."""

    def advance(self, steps: int = 1) -> None:
        """Shows nothing."""

    def say(self, line: str) -> None:
        """Shows nothing."""
