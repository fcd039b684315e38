"""Models as files: those of a run, from which training goes on to the bit, and any saved model with
its optimizer distributed.
"""

import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from horovod.tensorflow.compression import Compressor

from hvd_xai.errors import CheckpointError
from hvd_xai.keras.collectives import Compression
from hvd_xai.keras.optimizer import DistributedOptimizer, is_distributed
from hvd_xai.keras.variables import seeds_of

_NAME = re.compile(r"epoch-(\d{6})\.keras")
_WRITING = ".writing-"
# within the .keras file, which is a zip: both are there or neither is; Keras passes over it
_MEMBER = "hvd_xai.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training needs to go on beside the model.

    Attributes:
        epoch: the last one that is done.
        step: optimizer updates so far.
        size: how many ranks trained.
        learning_rate: of one rank, before it is scaled by their number; None if it is a schedule.
        seeds: the states of the seed generators, by rank, in the order of the model's variables.
    """

    epoch: int
    step: int
    size: int
    learning_rate: float | None
    seeds: list[list[list[int]]]


def load_model(
    filepath: str | Path,
    custom_optimizers: Sequence[type] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    compression: type[Compressor] = Compression.none,
) -> "keras.Model":
    """Loads a saved model and makes its optimizer reduce over the ranks, with the state that it was
    saved with.

    Args:
        filepath: a `.keras` file, from a distributed run or from plain Keras.
        custom_optimizers: optimizer classes of your own that the model may have been saved with.
        custom_objects: other classes and functions of your own, by name.
        compression: as in `DistributedOptimizer`.

    Returns:
        The model; where it was saved without having been compiled, it has no optimizer, and
        `compile` wants a distributed one.

    Raises:
        ValueError: if the file is no model, or is of a class that is not given.
    """
    known = {
        **{optimizer.__name__: optimizer for optimizer in custom_optimizers or ()},
        **(custom_objects or {}),
    }
    model = keras.saving.load_model(filepath, custom_objects=known)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not is_distributed(optimizer):
        model.optimizer = DistributedOptimizer(optimizer, compression=compression)
        model.jit_compile = False
    return model


def stage_model(model: "keras.Model", folder: Path, trained: Trained) -> None:
    """Saves the model and its optimizer's state after an epoch under a name that nobody resumes
    from, until `publish_model`.

    Raises:
        OSError: if the disk is full or read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writing = _staged_file(folder, trained.epoch)
    try:
        model.save(writing)
        with zipfile.ZipFile(writing, "a") as archive:
            archive.writestr(_MEMBER, json.dumps(asdict(trained)))
        with writing.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        writing.unlink(missing_ok=True)
        raise


def publish_model(folder: Path, epoch: int) -> Path:
    """Makes what was staged the model that a run is resumed from, in one step, and then removes
    older ones.

    Raises:
        OSError: if the disk is read-only; the older file is kept then.
    """
    path = _staged_file(folder, epoch).replace(model_file(folder, epoch))
    _fsync(folder)
    remove_models(folder, but=epoch)
    return path


def remove_models(folder: Path, but: int | None = None) -> None:
    """Removes a run's models, `but` one, and what a job that was killed has left half-written."""
    for epoch in _epochs(folder):
        if epoch != but:
            model_file(folder, epoch).unlink()
    for torn in folder.glob(f"{_WRITING}*"):
        torn.unlink()


def model_file(folder: Path, epoch: int) -> Path:
    """Returns where the model of an epoch lies."""
    return folder / f"epoch-{epoch:06d}.keras"


def _staged_file(folder: Path, epoch: int) -> Path:
    return folder / f"{_WRITING}{model_file(folder, epoch).name}"


def read_trained(folder: Path) -> Trained | None:
    """Returns how far the newest model of a run has come; None if there is none.

    Raises:
        CheckpointError: if the file is damaged, or was not saved by a run.
    """
    epoch = max(_epochs(folder), default=None)
    if epoch is None:
        return None
    path = model_file(folder, epoch)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            record = json.loads(archive.read(_MEMBER))
            trained = Trained(**record)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged or was not saved by a run ({error}), so training cannot go on from"
            " it. Start the run anew with --overwrite."
        ) from error
    if damaged is not None or trained.epoch != epoch:
        raise CheckpointError(
            f"{path} is damaged, so training cannot go on from it. Start the run anew with"
            " --overwrite."
        )
    return trained


def load_state(model: "keras.Model", folder: Path, trained: Trained) -> None:
    """Loads weights and optimizer state into a model that is built and compiled as the one that was
    saved.

    Raises:
        CheckpointError: if the model or its optimizer is another.
    """
    path = model_file(folder, trained.epoch)
    try:
        model.load_weights(path)
    except ValueError as error:
        raise CheckpointError(
            f"the model of {path} is another than the recipe now builds; resume with the same"
            f" options. ({error})"
        ) from error
    if int(model.optimizer.iterations) != trained.step:
        raise CheckpointError(
            f"the optimizer of {path} is another than the recipe now compiles with; resume with the"
            " same options."
        )


def seed_states(model: "keras.Model") -> list[list[int]]:
    """Returns the states of this rank's seed generators."""
    return [
        [int(word) for word in np.asarray(seed.value.numpy()).reshape(-1)]
        for seed in seeds_of(model)
    ]


def set_seed_states(model: "keras.Model", states: Sequence[Sequence[int]]) -> None:
    """Sets what `seed_states` returned."""
    for seed, state in zip(seeds_of(model), states, strict=True):
        seed.assign(
            np.array(state, np.uint32)
            .astype(keras.backend.standardize_dtype(seed.dtype))
            .reshape(seed.shape)
        )


def _epochs(folder: Path) -> list[int]:
    names = (_NAME.fullmatch(path.name) for path in folder.glob("*.keras"))
    return [int(name[1]) for name in names if name]


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
