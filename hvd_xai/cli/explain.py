"""`hvd-xai explain`: a saved model over a whole data set, on all ranks."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hvd_xai.cli import options
from hvd_xai.cli.console import program, progress, say
from hvd_xai.cli.jobs import costs, load_saved_model, run_mode, start_ranks

if TYPE_CHECKING:
    from hvd_xai.explain.dataset_job import Dataset
    from hvd_xai.lookup.resolve import Method
    from hvd_xai.probe.probe import Probe


def explain(  # noqa: PLR0913  # one parameter is one option of the command line
    model: options.SavedModel,
    data: options.DataSet,
    output: options.OutputOfData = None,
    *,
    method: options.NamedMethods = None,
    set_: options.MethodSettings = None,
    targets: options.Targets = None,
    feature: options.Features = None,
    precision: options.PrecisionName = None,
    custom_objects: options.CustomObjects = None,
    unsafe_models: options.UnsafeModels = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
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

    hvd-xai explain two_outputs.keras test.npz --set score.head=0 -o runs/first_output

    hvd-xai explain model.keras data.tfrecord --feature inputs=x:float32:8,8,1 --feature
    targets=y:int64 -o runs/records

    A job that was killed goes on with --resume; what a job will take is said by --dry-run.
    """
    mode, folder = run_mode(resume=resume, overwrite=overwrite), output or Path("runs", data.stem)
    world = start_ranks()
    from hvd_xai.checkpoint.run_directory import RunDirectory
    from hvd_xai.explain.dataset_job import DatasetJob
    from hvd_xai.tracing.precision import check_precision

    # from here on everything fails on all ranks or on none
    with world.together("loading the model"):
        known = check_precision(precision)
        loaded = load_saved_model(model, custom_objects or [], is_trusted=unsafe_models)
        methods = _resolve_methods(method or ["integrated_gradients"], set_ or [])
        dataset = _describe_dataset(data, targets, feature or [])
        run = RunDirectory(folder, mode=mode, config={"model": str(model), "data": str(data)})
    job = DatasetJob(loaded, methods, dataset, run, world=world, precision=known)
    if dry_run:
        said = costs(job.estimate())
    else:
        with progress() as bar:
            said = _closing(job.explain(bar), folder)
    if world.is_root:
        say(*said)


def _resolve_methods(specs: Sequence[str], settings: Sequence[str]) -> "tuple[Method, ...]":
    """Loads the methods that the command line names, and binds the options that it sets."""
    from hvd_xai.lookup.methods import load_methods
    from hvd_xai.lookup.resolve import resolve
    from hvd_xai.lookup.settings import parse_settings

    functions = load_methods(specs)
    bound = parse_settings(settings, functions)
    return resolve({name: partial(function, **bound[name]) for name, function in functions.items()})


def _describe_dataset(data: Path, targets: Path | None, features: Sequence[str]) -> "Dataset":
    """Returns the data set, and where its TFRecord examples have something."""
    from hvd_xai.explain.dataset_job import Dataset
    from hvd_xai.probe.dataset_format import Feature

    return Dataset(data, targets, dict(Feature.parse(text) for text in features))


def _closing(probe: "Probe", folder: Path) -> list[str]:
    """Returns the lines that say where the run is, and the commands that show it."""
    show = f"{program('hvd-xai')} show {shlex.quote(str(folder))}"
    return [
        "",
        f"{len(probe)} samples are explained in {folder}. To look at them:",
        "",
        f"  {show}",
        f"  {show} --sample {probe.sample_ids[0]} --png out.png",
        "",
    ]
