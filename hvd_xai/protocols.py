"""The contracts that the rooms share. Nothing here needs TensorFlow or MPI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args, runtime_checkable

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
    Tensor: TypeAlias = tf.Tensor
else:
    # `object`, because beartype cannot check an alias that contains itself.
    Json: TypeAlias = object
    # TensorFlow is not imported here, and `tf.nest` packs arrays and specifications into records
    # of tensors too.
    Tensor: TypeAlias = object


@runtime_checkable
class Score(Protocol):
    """The scalar of each example that is explained: `(outputs, targets) -> [n]`, float32.

    A score with an option `at` gets there what the model returns for the examples themselves;
    `hvd_xai.scores` says when.

    Example:
        >>> from hvd_xai.attributions.saliency import saliency
        >>> def margin(outputs, targets):
        ...     best = tf.math.top_k(outputs, 2).values
        ...     return best[:, 0] - best[:, 1]
        >>> computed = Compute(model, partial(saliency, score=margin))(inputs, targets, ids)
        >>> computed.attributions.shape
        (4, 8, 8, 1)
    """

    def __call__(self, outputs: "tf.Tensor", targets: "tf.Tensor", /) -> "tf.Tensor":
        """Returns one scalar for each example from outputs `[n, ...]` and targets `[n]`."""


@runtime_checkable
class Baseline(Protocol):
    """The reference inputs of a batch: `inputs -> [n, ...]`.

    It is `[b, n, ...]` where each input has several references. A baseline with an option `ids`
    gets the sample ids, one with an option `channels` where the model has its channels; methods ask
    through `hvd_xai.baselines.references`.

    Example:
        >>> from hvd_xai.attributions.integrated_gradients import integrated_gradients
        >>> def darker(inputs):
        ...     return inputs / 2
        >>> method = partial(integrated_gradients, baseline=darker)
        >>> Compute(model, method)(inputs, targets, ids).attributions.shape
        (4, 8, 8, 1)
    """

    def __call__(self, inputs: "tf.Tensor", /) -> "tf.Tensor":
        """Returns the references of the inputs `[n, ...]`, in the inputs' dtype."""


Channels: TypeAlias = Literal["last", "first", "none"]
"""Where inputs have the axis of their channels; "none" says that each axis has places, as where an
image is `[h, w]`."""

ScoreUnit: TypeAlias = Literal["probability", "logit", "log-odds"]
"""Unit of a score, where it is known."""
ScoreClass: TypeAlias = Literal["target", "predicted", "1"]
"""Class that a score belongs to: each sample's target, the class predicted for it, or class 1 of a
model with a single output, whatever the target."""


@dataclass(frozen=True, slots=True)
class ScoreFacts:
    """Says what a score is; None where that is not known, as of a user's own scores.

    Args:
        unit: unit of the score.
        of_class: class that the score belongs to.

    Raises:
        ValueError: if either is none of those words.

    Example:
        >>> ScoreFacts("probability", "1").of_class
        '1'
    """

    unit: ScoreUnit | None = None
    of_class: ScoreClass | None = None

    def __post_init__(self) -> None:
        for said, known in ((self.unit, ScoreUnit), (self.of_class, ScoreClass)):
            if said is not None and said not in get_args(known):
                raise ValueError(
                    f"a score is in one of {', '.join(get_args(ScoreUnit))}, and of one of"
                    f" {', '.join(get_args(ScoreClass))}; got {said!r}"
                )


AttributedTo: TypeAlias = Literal["inputs", "places", "units"]
"""What attributions are attributed to; `Attributed` says what each word means."""


@dataclass(frozen=True, slots=True)
class Attributed:
    """Attributions, and what the method knows about them.

    `tf.nest` sees the tensors alone. While a method is traced, the two facts travel in the
    structure of the nest, through `tf.function` and `micro_batches.map_blocks`, and come out as the
    Python values that they are.

    Attributes:
        attributions: attributions of the examples, `[n, ...]`.
        per_sample: further values by name, one for each example, such as `convergence_delta`; the
            checkpoint holds each as an array `[sample]`. Those named `standard_errors` are of the
            attributions, and have their shape.
        attributed_to: what has an attribution of its own. "inputs": each value (or token) of an
            input; the attributions then have the inputs' shape. "places": each place of the inputs,
            perhaps coarser, all channels together. "units": each unit of a layer. None: not said;
            the names of features and words are then shown beside no attribution.
        signed: whether attributions have a sign by definition; those without one are never
            negative. None: not said.

    Raises:
        ValueError: if `attributed_to` or `signed` is none of these.

    Example:
        >>> attributed = Attributed(tf.ones([4, 2]), attributed_to="inputs", signed=False)
        >>> doubled = tf.nest.map_structure(lambda tensor: 2 * tensor, attributed)
        >>> float(doubled.attributions[0, 0]), doubled.attributed_to, doubled.signed
        (2.0, 'inputs', False)
    """

    attributions: Tensor
    per_sample: Mapping[str, Tensor] = field(default_factory=dict)
    attributed_to: AttributedTo | None = None
    signed: bool | None = None

    def __post_init__(self) -> None:
        if self.attributed_to not in (None, *get_args(AttributedTo)):
            raise ValueError(
                f"attributed_to is one of {', '.join(map(repr, get_args(AttributedTo)))}, or None;"
                f" got {self.attributed_to!r}"
            )
        if self.signed not in (None, True, False):
            raise ValueError(f"signed is True, False or None; got {self.signed!r}")

    # The protocol of `tf.nest` for a class of one's own: (structure, parts).
    def __tf_flatten__(
        self,
    ) -> tuple[tuple[AttributedTo | None, bool | None], tuple[Tensor, Mapping[str, Tensor]]]:
        """Returns the facts, and the fields that hold tensors."""
        return (self.attributed_to, self.signed), (self.attributions, self.per_sample)

    @classmethod
    def __tf_unflatten__(
        cls,
        facts: tuple[AttributedTo | None, bool | None],
        parts: tuple[Tensor, Mapping[str, Tensor]],
    ) -> "Attributed":
        """Returns the record of these facts and parts."""
        return cls(*parts, *facts)


@runtime_checkable
class Attribution(Protocol):
    """A method: attributes a model's score to its inputs, or to a layer's outputs.

    A method is pure TensorFlow and traceable; the first axis of everything is examples, and no
    example depends on another. It knows no ranks, files or pictures. Options are keyword-only and
    bound with `functools.partial`, so that name and options can be read back from it. The model
    is run for a score by `hvd_xai.scores.evaluate`, in inference mode.

    Example:
        >>> def deviation(model, inputs, targets, /, *, ids):
        ...     return inputs - tf.reduce_mean(inputs, axis=[1, 2, 3], keepdims=True)
        >>> Compute(model, deviation)(inputs, targets, ids).attributions.shape
        (4, 8, 8, 1)
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
        """Returns the attributions of `inputs` `[n, ...]` for `targets` `[n]`.

        The sample ids `[n]` seed randomness.
        """


Methods: TypeAlias = Sequence[Attribution | str] | Mapping[str, Attribution | str]
"""Methods, or their names, to explain with; or a mapping from what each is committed under, so that
one may be there several times."""


@runtime_checkable
class Progress(Protocol):
    """The place where long work reports how far it is: a bar on the terminal, or nothing."""

    def start(self, task: str, total: int) -> None:
        """Begins a task of `total` steps; an earlier task is over."""

    def advance(self, steps: int = 1) -> None:
        """Reports `steps` more steps as done."""

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
