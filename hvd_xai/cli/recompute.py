"""`hvd-xai recompute`: whether a stored explanation comes out again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.cli import options
from hvd_xai.cli.console import say
from hvd_xai.cli.jobs import load_saved_model
from hvd_xai.log import quiet_start

if TYPE_CHECKING:
    from hvd_xai.explain.recompute import Comparison


def recompute(
    run: options.Run,
    model: Annotated[
        Path, typer.Option(help="The model that was explained, a .keras file.", metavar="MODEL")
    ],
    sample: Annotated[
        list[int], typer.Option(min=0, max=2**63 - 1, help="A sample id. Can be given again.")
    ],
    epoch: Annotated[int | None, typer.Option(help="An epoch. [default: the newest]")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=(
                "Only what this name has in RUN, or this method; path/to/file.py or"
                " package.module:name for one of your own."
                " [default: all of the epoch]"
            )
        ),
    ] = None,
    custom_objects: options.CustomObjects = None,
    unsafe_models: options.UnsafeModels = False,
) -> None:
    """Computes explanations again, and ends with 0 only if all come out as they are stored.

    hvd-xai recompute runs/demo --model runs/demo/models/epoch-000004.keras --sample 17

    hvd-xai recompute runs/demo --model model.keras --epoch 2 --method grad_cam --sample 17 --sample
    18
    """
    explanations = open_explanations(run)
    with quiet_start():
        from hvd_xai.explain.recompute import recompute_epoch
    loaded = load_saved_model(model, custom_objects or [], is_trusted=unsafe_models)
    differs = False
    for found in recompute_epoch(explanations, loaded, sample, epoch=epoch, method=method):
        if found.changed:
            changes = [f"{name} {then} -> {now}" for name, (then, now) in found.changed.items()]
            say(f"{found.method}: computed again with other versions: {', '.join(changes)}")
        for comparison in found.comparisons:
            differs |= not comparison.matches
            say(f"epoch {found.epoch}  {found.method}  {_say(comparison)}")
    raise typer.Exit(int(differs))


def _say(comparison: "Comparison") -> str:
    """Returns how a sample came out, as one line."""
    from hvd_xai.explain.recompute import TOLERANCE

    how = (
        "equal to the bit"
        if comparison.is_bit_equal
        else f"largest difference {comparison.difference:.1e} of the largest attribution"
    )
    line = f"{how} (tolerance {TOLERANCE:.1e})"
    if comparison.matches:
        return f"sample {comparison.sample_id}: matches, {line}"
    prediction, score = comparison.prediction, comparison.score
    return (
        f"sample {comparison.sample_id}: DIFFERS, {line}; prediction and score"
        f" {prediction[0]:g}, {score[0]:g} -> {prediction[1]:g}, {score[1]:g}"
    )
