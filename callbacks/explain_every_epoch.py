"""Explains the probe after every epoch with integrated gradients and, where the model sees images,
Grad-CAM.

hvd-xai train digits_cnn --callback explain_every_epoch --set n_steps=100 --set every=2
hvd-xai train digits_cnn --method grad_cam --method integrated_gradients
"""

from functools import partial
from typing import Literal

import keras

from hvd_xai import Explain, Run
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.sinks.tensorboard import TensorBoard


def build(
    run: Run,
    *,
    methods: tuple[str, ...] = (),
    n_steps: int = 50,
    layer: str | None = None,
    every: int = 1,
    precision: Literal["bfloat16"] | None = None,
) -> list[keras.callbacks.Callback]:
    """Returns the callback that explains.

    Args:
        run: what is trained, and where it goes.
        methods: names of methods to explain with instead.
        n_steps: points of the path of integrated gradients.
        layer: the layer that Grad-CAM looks at; the last one with a spatial output if None.
        every: how many epochs lie between two explanations.
        precision: `bfloat16` explains in it, faster where the hardware has it; training stays as it
            is.
    """
    with_options = {
        "integrated_gradients": partial(integrated_gradients, n_steps=n_steps),
        "grad_cam": partial(grad_cam, layer=layer),
    }
    is_image = run.probe.inputs.ndim == 4  # examples, height, width, channels
    names = methods or (
        ("integrated_gradients", "grad_cam") if is_image else ("integrated_gradients",)
    )
    return [
        Explain(
            run.probe,
            [with_options.get(name, name) for name in names],
            world=run.world,
            run=run.directory,
            sinks=[TensorBoard()],
            every=every,
            progress=run.progress,
            precision=precision,
        )
    ]
