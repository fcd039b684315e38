"""`hvd-xai explain`: a saved model over a whole data set, on all ranks."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hvd_xai.cli.console import program, progress
from hvd_xai.cli.jobs import costs, run_mode
from hvd_xai.log import configure, quiet_start


def explain(  # noqa: PLR0913  # one parameter is one option of the command line
    model: Annotated[Path, typer.Argument(help="A saved model, a .keras file.", metavar="MODEL")],
    data: Annotated[
        Path,
        typer.Argument(
            help=(
                "A data set: .npz (inputs, targets and, if they are there, class_names,"
                " feature_names or vocabulary), .npy, .tfrecord,"
                " Zarr, or a folder with a folder for each class, in order of name. The model gets"
                " it as it is, pixels of image files from 0 to"
                " 255."
            ),
            metavar="DATA",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The run directory. [default: runs/ and the name of DATA]",
            metavar="RUN",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "A method's name, path/to/file.py or package.module:name; NAME= before it says what"
                " it is committed under. Can be given"
                " again. [default: integrated_gradients]"
            ),
            metavar="[NAME=]METHOD",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of a method; a wrong name lists them all.",
            metavar="[METHOD.]NAME=VALUE",
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help=(
                "What to explain of each input, a .npy file, where DATA does not say. With --set"
                " score=predicted none are needed: what"
                " the model predicts is taken for target and label."
            )
        ),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Where TFRecord examples have something: inputs=x:float32:8,8,1. Can be given"
                " again."
            ),
            metavar="NAME=KEY:KIND:SHAPE",
        ),
    ] = None,
    custom_objects: Annotated[
        list[str] | None,
        typer.Option(
            help="Classes of your own in the model: path/to/file.py or package.module:name."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run that is there, behind the rows that it has."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the run that is there, and start anew.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what explaining will take; explain nothing, leave nothing."
        ),
    ] = False,
) -> None:
    """Explains a saved model over a whole data set and commits the result as a run of one epoch.

    Memory is bounded, however large the data set.

    mpirun -np 4 hvd-xai explain model.keras test.npz --method integrated_gradients --set n_steps=64
    -o runs/test

    hvd-xai explain model.keras images/ --method grad_cam -o runs/images

    hvd-xai explain model.keras test.npz --method black=integrated_gradients --method
    mean=integrated_gradients --set mean.baseline=mean

    hvd-xai explain model.keras x.npy --targets y.npy -o runs/x --resume

    hvd-xai explain model.keras x.npy --set score=predicted -o runs/x

    hvd-xai explain model.keras data.tfrecord --feature inputs=x:float32:8,8,1 --feature
    targets=y:int64 -o runs/records

    A job that was killed goes on with --resume: what was computed is not computed again. What a job
    will take is said by --dry-run, on as many ranks as it will have.
    """
    mode = run_mode(resume=resume, overwrite=overwrite)
    with quiet_start():
        import hvd_xai.keras as hvd
        from hvd_xai.checkpoint.run_directory import RunDirectory
        from hvd_xai.compute.saved_model import read_model
        from hvd_xai.explain.dataset_job import Dataset, DatasetJob
        from hvd_xai.lookup.methods import load_methods
        from hvd_xai.lookup.modules import load_objects
        from hvd_xai.lookup.resolve import resolve
        from hvd_xai.lookup.settings import parse_settings
        from hvd_xai.probe.dataset_format import Feature
    world = hvd.init()
    configure(world.rank, world.size, world.host)
    # from here on everything fails on all ranks or on none
    with world.together("loading the model"):
        objects = [load_objects(spec) for spec in custom_objects or []]
        known = {name: value for found in objects for name, value in found.items()}
        loaded = read_model(model, known)
        functions = load_methods(method or ["integrated_gradients"])
        options = parse_settings(set_ or [], functions)
        methods = resolve(
            {name: partial(function, **options[name]) for name, function in functions.items()}
        )
        dataset = Dataset(data, targets, dict(Feature.parse(text) for text in feature or []))
        folder = output or Path("runs", data.stem)
        run = RunDirectory(folder, mode=mode, config={"model": str(model), "data": str(data)})
    job = DatasetJob(loaded, methods, dataset, run, world=world)
    if dry_run:
        estimates = job.estimate()
        if world.is_root:
            print(costs(estimates))
        return
    with progress() as bar:
        probe = job.explain(bar)
    if world.is_root:
        show = f"{program('hvd-xai')} show {shlex.quote(str(folder))}"
        print(f"\n{len(probe)} samples are explained in {folder}. To look at them:\n\n  {show}")
        print(f"  {show} --sample {probe.sample_ids[0]} --png out.png\n")
