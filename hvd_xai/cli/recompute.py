"""`hvd-xai recompute`: whether a stored explanation comes out again."""

from pathlib import Path
from typing import Annotated

import typer

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.errors import CheckpointError
from hvd_xai.log import quiet_start


def recompute(
    run: Annotated[
        str, typer.Argument(help="The folder of a run, or its URL: s3://bucket/run.", metavar="RUN")
    ],
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
    custom_objects: Annotated[
        list[str] | None,
        typer.Option(
            help="Classes of your own in the model: path/to/file.py or package.module:name."
        ),
    ] = None,
) -> None:
    """Computes explanations again from what their manifests say, and ends with 0 only where all
    come out as they are stored.

    hvd-xai recompute runs/demo --model runs/demo/models/epoch-000004.keras --sample 17

    hvd-xai recompute runs/demo --model model.keras --epoch 2 --method grad_cam --sample 17 --sample
    18
    """
    explanations = open_explanations(run)
    if not explanations.epochs:
        raise CheckpointError(f"{run} holds no explanation yet")
    probe = explanations.probe()
    if probe is None:
        raise CheckpointError(f"{run} has no stored probe, so there is nothing to compute from")
    with quiet_start():
        from hvd_xai.compute.saved_model import read_model
        from hvd_xai.explain.recompute import TOLERANCE
        from hvd_xai.explain.recompute import recompute as compute_again
        from hvd_xai.lookup.describe import describe, digest_sources
        from hvd_xai.lookup.methods import load_method
        from hvd_xai.lookup.modules import load_objects
        from hvd_xai.provenance import versions
    known = {
        name: value for spec in custom_objects or [] for name, value in load_objects(spec).items()
    }
    loaded = read_model(model, known)
    number = explanations.epochs[-1] if epoch is None else epoch
    names, function = explanations.methods(number), None
    if method in names:
        names = [method]
    elif method is not None:
        function = load_method(method)
        its_name = describe(function)[0]
        names = [
            name
            for name in names
            if explanations.explanation(number, name).manifest.function == its_name
        ] or [its_name]
    differs = False
    for name in names or [""]:
        explanation = explanations.explanation(number, name)
        then = explanation.manifest.versions
        here = {**versions(), **({} if function is None else digest_sources(function))}
        others = [
            f"{library} {then.get(library)} -> {now}"
            for library, now in here.items()
            if then.get(library) != now
        ]
        if others:
            print(f"{name}: computed again with other versions: {', '.join(others)}")
        for found in compute_again(loaded, explanation, probe, sample, method=function):
            differs |= not found.matches
            how = (
                "equal to the bit"
                if found.is_bit_equal
                else f"largest difference {found.difference:.1e} of the largest attribution"
            )
            verdict = "matches" if found.matches else "DIFFERS"
            scores = (
                ""
                if found.matches
                else (
                    f"; prediction and score {found.prediction[0]:g}, {found.score[0]:g} ->"
                    f" {found.prediction[1]:g}, {found.score[1]:g}"
                )
            )
            print(
                f"epoch {number}  {name}  sample {found.sample_id}: {verdict}, {how} (tolerance"
                f" {TOLERANCE:.1e}){scores}"
            )
    raise typer.Exit(int(differs))
