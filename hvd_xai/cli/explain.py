"""`hvd-xai explain`: a saved model over a whole data set, on all ranks."""

import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvd_xai.cli.console import program, progress, rank
from hvd_xai.cli.jobs import costs, run_mode
from hvd_xai.log import configure, quiet_start

if TYPE_CHECKING:
    from hvd_xai.ranks.world import World

UNFINISHED = "unfinished"
"""Folder of a run that holds the data set as it is read, and the rows that are not committed yet;
removed at the end."""


def explain(  # noqa: PLR0915
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
    """Explains a saved model over a whole data set, in bounded memory, and commits the result as a
    run of one epoch.

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
        from hvd_xai.explain.callback import explain as explain_probe
        from hvd_xai.explain.estimate import estimate
        from hvd_xai.explain.targets import predict_targets
        from hvd_xai.lookup.methods import load_methods
        from hvd_xai.lookup.modules import load_objects
        from hvd_xai.lookup.resolve import resolve
        from hvd_xai.lookup.settings import parse_settings
        from hvd_xai.probe import unpack
        from hvd_xai.recording.unfinished_rows import RowFiles
    world = hvd.init()
    configure(world.rank, world.size, world.host)
    # from here on everything fails on all ranks or on none

    with world.together("loading the model"):
        known = {
            name: value
            for spec in custom_objects or []
            for name, value in load_objects(spec).items()
        }
        loaded = read_model(model, known)
        functions = load_methods(method or ["integrated_gradients"])
        options = parse_settings(set_ or [], functions)
        methods = {name: partial(function, **options[name]) for name, function in functions.items()}
        resolved = resolve(methods)
        needs_targets = any(method.reads_targets for method in resolved)
    run = output or Path("runs", data.stem)
    config = {"model": str(model), "data": str(data)}
    directory = RunDirectory(run, mode=mode, config=config)
    with world.together("looking for a run"):
        if world.is_root:
            directory.check() if dry_run else directory.claim()
            if overwrite and not dry_run:
                shutil.rmtree(run / UNFINISHED, ignore_errors=True)
    unfinished = (
        _existing(run.absolute().parent) / f".{run.name}-{world.job}"
        if dry_run
        else run / UNFINISHED
    )
    unpacked = unfinished / f"data-{_unpacker(world)}"  # hosts may share the folder
    estimates = []
    has_targets = True
    try:
        with world.together("unpacking the data set"):
            if world.local_rank == 0:
                has_targets = unpack.unpack(
                    data,
                    unpacked,
                    targets=targets,
                    features=dict(unpack.Feature.parse(text) for text in feature or []),
                    input_shape=tuple(loaded.input_shape[1:]),
                    needs_targets=needs_targets,
                )
        with world.together("loading the data set"):
            probe = unpack.open_unpacked(unpacked)
        if not (dry_run or all(world.allgather("asking for targets", has_targets))):
            probe = predict_targets(loaded, probe, resolved, world=world)
        if dry_run:
            estimates = estimate(loaded, probe, resolved, world=world)
        else:
            with progress() as bar:
                row_files = RowFiles(unfinished / "rows")
                explain_probe(
                    loaded,
                    probe,
                    methods,
                    world=world,
                    run=directory,
                    progress=bar,
                    row_files=row_files,
                )
    except BaseException:
        if dry_run:  # there is nothing to go on with
            shutil.rmtree(unfinished, ignore_errors=True)
        raise
    with world.together("removing what was unpacked"):
        if world.local_rank == 0:
            # others may remove it at the same time, and where disks are shared, files that are
            # mapped somewhere stay a little longer
            shutil.rmtree(unfinished, ignore_errors=True)
    if rank() == 0 and dry_run:
        print(costs(estimates))
    elif rank() == 0:
        show = f"{program('hvd-xai')} show {shlex.quote(str(run))}"
        print(f"\n{len(probe)} samples are explained in {run}. To look at them:\n\n  {show}")
        print(f"  {show} --sample {probe.sample_ids[0]} --png out.png\n")


def _unpacker(world: "World") -> int:
    """Returns the rank that unpacks for this one: the first on its host.

    Collective: every rank must call this.
    """
    local_ranks = world.allgather("asking who unpacks", world.local_rank)
    # of several hosts of one name, as containers may have, the nearest before
    return max(
        rank
        for rank in range(world.rank + 1)
        if local_ranks[rank] == 0 and world.hosts[rank] == world.host
    )


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
