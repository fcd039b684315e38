"""Horovod's names are there with its arguments, and say how it runs."""

import importlib
import inspect

import pytest

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World

OTHERWISE = {
    "init",  # takes process_sets by name
    "is_version_greater_equal_than",  # of Horovod's own
    "load_model",  # has no legacy_opts: Keras 3 has no legacy optimizers
    "run",  # a decorator, whose argument has another name
    "TensorFlowKerasState",  # the base class of KerasState
}


@pytest.mark.parametrize("part", ["", ".callbacks", ".elastic"])
def test_horovods_names_and_arguments_are_there(world: World, part: str) -> None:
    """So that a script that imports `horovod.tensorflow.keras` changes that line alone."""
    theirs, ours = (
        importlib.import_module(package + part)
        for package in ("horovod.tensorflow.keras", "hvd_xai.keras")
    )
    offered = {
        name: value
        for name, value in vars(theirs).items()
        if callable(value) and not name.startswith("_")
    }
    assert "KerasState" in offered or len(offered) > 4
    for name in offered.keys() - OTHERWISE:
        arguments, had = (
            list(inspect.signature(getattr(module, name)).parameters) for module in (ours, theirs)
        )
        assert arguments[: len(had)] == had, name


def test_horovod_says_how_it_runs(world: World) -> None:
    assert (hvd.rank(), hvd.size(), hvd.cross_rank(), hvd.cross_size()) == (
        world.rank,
        world.size,
        0,
        1,
    )
    assert hvd.is_initialized()
    assert hvd.mpi_enabled() != hvd.gloo_enabled()
    for build in ("mpi", "gloo", "nccl", "ddl", "ccl", "cuda", "rocm"):
        assert getattr(hvd, f"{build}_built")() in (False, True, 0, 1)
    assert hvd.global_process_set.size() == world.size
