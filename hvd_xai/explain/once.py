"""Explains a probe once, without a training around it."""

from collections.abc import Sequence
from pathlib import Path

import keras

from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.runner import Runner
from hvd_xai.explain.summary import Summary
from hvd_xai.lookup.resolve import resolve
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Methods
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import Recording
from hvd_xai.sinks import Sink
from hvd_xai.tracing.precision import Precision


def explain(
    model: "keras.Model",
    probe: Probe,
    methods: Methods,
    *,
    world: World,
    run: RunDirectory | str | Path,
    sinks: Sequence[Sink] = (),
    epoch: int = 0,
    precision: Precision | None = None,
) -> Summary:
    """Explains a probe once and commits the result. Collective: every rank must call this.

    `Explain` explains while a model trains. `Runner` offers more: many epochs, progress, resuming.

    Args:
        model: built Keras model, with the same weights on every rank.
        probe: examples to explain, the same on every rank; each rank computes its share.
        methods: names of methods, or functions with bound options; or a mapping from names to
            commit under to such methods.
        world: ranks that share the work.
        run: run to commit to, or the path of a folder that must not hold a run yet.
        sinks: functions to call on the root with the run and each committed explanation.
        epoch: epoch to commit under, 0-based.
        precision: `bfloat16` to explain in it; None for the model's own precision.

    Returns:
        A summary of the explanation.

    Raises:
        PeerError: on all ranks, if a method or the probe does not fit the model, the ranks' probes
            or weights differ, or the run cannot be written. An error that all ranks raise alike
            keeps its own type.
        TypeError: if a sink cannot be called with a run and an explanation.

    Example:
        >>> summary = explain(model, probe, ["saliency"], world=world, run="runs/once")
        >>> RunDirectory("runs/once").explanations().methods(0)
        ['saliency']
    """
    with world.together("resolving the methods"):
        compiled = CompiledMethods(model, probe, resolve(methods), precision=precision)
    directory = run if isinstance(run, RunDirectory) else RunDirectory(run)
    recording = Recording(overlap=False)
    runner = Runner(compiled, world=world, run=directory, sinks=sinks, recording=recording)
    summary = runner.run(epoch, 0)
    runner.close()
    return summary
