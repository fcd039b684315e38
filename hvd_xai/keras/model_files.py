"""Reads and writes models as files: of a run, to resume it bit by bit, and any saved model."""

import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from horovod.tensorflow.compression import Compressor

from hvd_xai.errors import CheckpointError
from hvd_xai.keras.distribute import is_distributed
from hvd_xai.keras.horovod_names import Compression
from hvd_xai.keras.optimizer import DistributedOptimizer
from hvd_xai.keras.shared_variables import seed_states_in
from hvd_xai.storage.durable import fsync_directory, fsync_file, writing
from hvd_xai.storage.paths import is_there

_NAME = re.compile(r"epoch-(\d{6})\.keras")
_WRITING = ".writing-"
# The record lies within the .keras file, which is a zip, so that both are there or neither is.
# Keras ignores members that it does not know.
_MEMBER = "hvd_xai.json"


# What zipfile, zlib, json, h5py and Keras raise for a damaged or a forged file.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    RuntimeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What resuming needs to know beside the model.

    Attributes:
        epoch: last epoch that is done, 0-based.
        step: number of optimizer updates so far.
        size: number of ranks that trained.
        learning_rate: learning rate of one rank, before it is scaled by their number; None if it is
            a schedule.
        seeds: states of the seed generators, for each rank, in the order of the model's variables.
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
    """Loads a saved model, and makes its optimizer reduce over the ranks.

    Collective: every rank must call this, as it must call `DistributedOptimizer`. The optimizer has
    the state that it was saved with.

    Args:
        filepath: `.keras` file, saved by a distributed run or by plain Keras.
        custom_optimizers: optimizer classes of your own that the model may have been saved with.
        custom_objects: other classes and functions of your own, by name.
        compression: encoding of gradients that travel, as for `DistributedOptimizer`.

    Returns:
        The model. If it was saved without being compiled, it has no optimizer; compile it with a
        distributed one.

    Raises:
        ValueError: if the file holds no model, or a class that is not given.

    Example:
        >>> import tempfile
        >>> import keras
        >>> import numpy as np
        >>> import hvd_xai.keras as hvd
        >>> world = hvd.init()
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(), "mse")
        >>> loss = model.train_on_batch(np.ones((4, 2)), np.ones(4))
        >>> model.save(path := tempfile.mkdtemp() + "/plain.keras")
        >>> int(hvd.load_model(path).optimizer.iterations)
        1
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
    """Saves model and optimizer under a name that nobody resumes from, until `publish_model`.

    Args:
        model: model that has just been trained.
        folder: folder for the models of one run.
        trained: record that is stored in the file.

    Raises:
        CheckpointError: if the disk is full or read-only.
    """
    staged = _staged_file(folder, trained.epoch)
    with writing(model_file(folder, trained.epoch)):
        # No folder above it: where the run's own is gone, it was moved or removed.
        folder.mkdir(exist_ok=True)
        try:
            model.save(staged)
            with zipfile.ZipFile(staged, "a") as archive:
                archive.writestr(_MEMBER, json.dumps(asdict(trained)))
            fsync_file(staged)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def publish_model(folder: Path, epoch: int) -> Path:
    """Makes the staged model the one that the run is resumed from, then removes older models.

    Raises:
        CheckpointError: if the disk is read-only; the older model is kept then.
    """
    path = model_file(folder, epoch)
    with writing(path):
        # First the new name, then the removal: at every instant there is a model to resume from.
        _staged_file(folder, epoch).replace(path)
        fsync_directory(folder)
    remove_models(folder, but=epoch)
    return path


def remove_models(folder: Path, but: int | None = None) -> None:
    """Removes the models of all epochs but one, and files that a killed job left half-written.

    Raises:
        CheckpointError: if the disk is read-only.
    """
    with writing(folder):
        for epoch in _epochs(folder):
            if epoch != but:
                model_file(folder, epoch).unlink()
        for torn in folder.glob(f"{_WRITING}*"):
            torn.unlink()


def model_file(folder: Path, epoch: int) -> Path:
    """Returns the path of an epoch's model."""
    return folder / f"epoch-{epoch:06d}.keras"


def _staged_file(folder: Path, epoch: int) -> Path:
    return folder / f"{_WRITING}{model_file(folder, epoch).name}"


def read_trained(folder: Path) -> Trained | None:
    """Returns the record of the newest model of a run; None if there is no model.

    Raises:
        CheckpointError: if the file is damaged, or was not saved by a run.
    """
    epoch = max(_epochs(folder), default=None)
    if epoch is None:
        return None
    path = model_file(folder, epoch)
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        if not path.is_file():
            raise ValueError("it is no plain file")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            record = json.loads(archive.read(_MEMBER))
            trained = _check_types(Trained(**record))
    except _DAMAGE as error:
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


def _check_types(trained: Trained) -> Trained:
    """Returns the record; whoever made the file may have put anything into it."""
    whole = (trained.epoch, trained.step, trained.size)
    if not all(isinstance(number, int) and number >= 0 for number in whole) or trained.size == 0:
        raise ValueError(f"epoch, step and size must be whole numbers; got {whole}")
    if not isinstance(trained.learning_rate, int | float | None):
        raise TypeError(f"the learning rate must be a number; got {trained.learning_rate!r:.40}")
    if not isinstance(trained.seeds, list) or len(trained.seeds) not in (0, trained.size):
        raise ValueError(f"there must be seeds for each of {trained.size} ranks")
    for states in trained.seeds:
        for state in states:
            np.array(state, np.uint32)
    return trained


def load_state(model: "keras.Model", folder: Path, trained: Trained) -> None:
    """Loads weights and optimizer state into a model that is built and compiled already.

    Args:
        model: model that is built and compiled as the saved one was.
        folder: folder for the models of one run.
        trained: record that `read_trained` returned.

    Raises:
        CheckpointError: if the saved model or its optimizer is a different one.
    """
    path = model_file(folder, trained.epoch)
    try:
        model.load_weights(path)
    except ValueError as error:
        raise CheckpointError(
            f"the model of {path} is another than the recipe now builds; resume with the same"
            f" options. ({' '.join(str(error).split())})"
        ) from error
    except (*_DAMAGE, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({' '.join(str(error).split())}), so training cannot go on from it."
            " Start the run anew with --overwrite."
        ) from error
    if int(model.optimizer.iterations) != trained.step:
        raise CheckpointError(
            f"the optimizer of {path} is another than the recipe now compiles with; resume with the"
            " same options."
        )


def seed_states(model: "keras.Model") -> list[list[int]]:
    """Returns the states of this rank's seed generators, in the order of the model's variables."""
    return [
        [int(word) for word in np.asarray(seed.value.numpy()).reshape(-1)]
        for seed in seed_states_in(model)
    ]


def set_seed_states(model: "keras.Model", states: Sequence[Sequence[int]]) -> None:
    """Sets the states of this rank's seed generators, as `seed_states` returned them."""
    for seed, state in zip(seed_states_in(model), states, strict=True):
        seed.assign(
            np.array(state, np.uint32)
            .astype(keras.backend.standardize_dtype(seed.dtype))
            .reshape(seed.shape)
        )


def _epochs(folder: Path) -> list[int]:
    # A folder that may not be read raises here: without its models, training would begin anew.
    paths = list(folder.iterdir()) if is_there(folder) else []
    names = [_NAME.fullmatch(path.name) for path in paths]
    return [int(name[1]) for name in names if name]
