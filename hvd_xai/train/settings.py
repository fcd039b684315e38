"""Defines the settings by which a recipe is trained and its callbacks are built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hvd_xai.checkpoint.run_directory import Mode, RunDirectory
from hvd_xai.lookup.recipes import Recipe
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json, Progress
from hvd_xai.provenance import git_commit
from hvd_xai.ranks.world import World


@dataclass(frozen=True, slots=True)
class Training:
    """What a callback recipe's `build(training)` gets to work with.

    Attributes:
        world: ranks that train.
        probe: examples to explain.
        run: run directory that explanations are committed to.
        epochs: number of epochs that are trained in all.
        progress: where the root shows how far it is.

    Example:
        >>> from hvd_xai import Explain
        >>> from hvd_xai.protocols import Silent
        >>> def build(training: Training) -> list[Explain]:
        ...     world, run = training.world, training.run
        ...     return [Explain(training.probe, ["saliency"], world=world, run=run)]
        >>> training = Training(world, probe, RunDirectory("runs/new"), 5, Silent())
        >>> [explain] = build(training)
    """

    world: World
    probe: Probe
    run: RunDirectory
    epochs: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Settings:
    """How long a recipe is trained, and from where.

    Args:
        epochs: number of epochs in all, at least 1.
        batch_size: number of examples in a batch of one rank; the recipe's if None.
        warmup_epochs: number of epochs over which the learning rate rises from that of one rank to
            that of all.
        seed: seed of weights, shuffling and dropout.
        mode: what to do with a run directory that holds a run: `new` refuses it, `resume` goes on
            with it, `overwrite` starts it anew.
        options: keyword options of the recipe's and the callbacks' functions, by the label
            `recipe.function`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> settings = Settings(epochs=3, options={"digits_cnn.build": {"filters": 4}})
        >>> settings.options_for("digits_cnn.build")
        {'filters': 4}
    """

    epochs: int = 5
    batch_size: int | None = None
    warmup_epochs: float = 1
    seed: int = 0
    mode: Mode = "new"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (
            self.epochs < 1
            or (self.batch_size is not None and self.batch_size < 1)
            or self.warmup_epochs < 0
        ):
            raise ValueError(
                "epochs and batch_size must be 1 or more, warmup_epochs 0 or more;"
                f" got {self.epochs}, {self.batch_size} and {self.warmup_epochs}"
            )

    def options_for(self, label: str) -> Mapping[str, Any]:
        """Returns the options that were chosen for a function of a recipe.

        Args:
            label: name of the recipe and of its function, such as `digits_cnn.build`.
        """
        return self.options.get(label, {})

    def config(self, recipe: Recipe, callbacks: Sequence[Recipe]) -> dict[str, Json]:
        """Returns what a run of these settings is started with, for its `run.json`.

        Args:
            recipe: recipe that is trained.
            callbacks: recipes of its callbacks.
        """
        return {
            "recipe": recipe.source,
            "callbacks": [callback.source for callback in callbacks],
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "warmup_epochs": self.warmup_epochs,
            "seed": self.seed,
            # As text: an option may be a function, or anything else that JSON does not know.
            "options": {
                label: {name: str(value) for name, value in chosen.items()}
                for label, chosen in self.options.items()
            },
            "git_commit": git_commit(),
        }
