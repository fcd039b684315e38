"""Builds samples for the tests of pictures, and finds things in pixels."""

import numpy as np

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import pixels
from hvd_xai.views.samples import Panel, Sample

RED, GREEN = (192, 0, 32), (0, 110, 60)
NAMES = tuple(f"feature {number}" for number in range(30))


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((image == np.array(colour, np.uint8)).all(axis=-1).any())


def make_sample(
    n_epochs: int = 1,
    *,
    prediction: float = 3,
    target: float = 3,
    inputs: bool = True,
    sample_id: int = 17,
) -> Sample:
    shape = (8, 8, 1)
    generator = np.random.default_rng(sample_id)
    panels = []
    for epoch in range(n_epochs):
        attributions = generator.normal(size=shape).astype(np.float32)
        panels.append(Panel("integrated_gradients", epoch, attributions, prediction, 0.9, 0.001))
        panels.append(
            Panel(
                "grad_cam",
                epoch,
                generator.random(shape[:1] * 2).astype(np.float32),
                prediction,
                0.9,
            )
        )
    return Sample(
        sample_id, target, target, tuple(panels), generator.random(shape) if inputs else None
    )


def make_table_sample(
    *epochs: np.ndarray, inputs: bool = True, names: tuple[str, ...] = NAMES
) -> Sample:
    panels = tuple(
        Panel("saliency", epoch, values, 1, 1.0, attributed_to="inputs")
        for epoch, values in enumerate(epochs)
    )
    return Sample(
        0,
        1,
        1,
        panels,
        np.linspace(-1, 1, len(epochs[0])) if inputs else None,
        ProbeFacts((len(names),), np.dtype(float), names),
    )


def red_bars(image: np.ndarray) -> list[int]:
    """Returns the lengths of red bars, from top to bottom; bars side by side are added."""
    red = (image == pixels.diverging(np.ones(1, np.float32), 1.0)[0]).all(axis=-1).sum(axis=1)
    # the end of a colour scale is a column or so
    starts = np.flatnonzero((red[1:] > 1) & (red[:-1] <= 1)) + 1
    return [int(red[start]) for start in starts]


def make_text_sample(
    *epochs: np.ndarray, words: tuple[str, ...], methods: tuple[str, ...] = ("saliency",)
) -> Sample:
    panels = tuple(
        Panel(method, epoch, values, 1, 1.0, attributed_to="inputs")
        for epoch, values in enumerate(epochs)
        for method in methods
    )
    facts = ProbeFacts((len(words),), np.dtype(np.int64), vocabulary=words)
    return Sample(0, 1, 1, panels, np.arange(len(words)), facts)
