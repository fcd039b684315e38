from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.checkpoint.verify import verify
from hvd_xai.explain.once import explain
from hvd_xai.lookup.methods import load_method
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Channels, Methods
from hvd_xai.ranks.world import World
from hvd_xai.sinks.tensorboard import TensorBoard
from hvd_xai.views.samples import read_samples
from tests.models_under_test import functional, of_places


def test_of_several_methods_the_one_that_does_not_fit_is_named(tmp_path: Path) -> None:
    probe = Probe(np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="method 'smoothgrad': noise is a standard deviation"):
        explain(
            functional(),
            probe,
            ["saliency", partial(smoothgrad, noise=-1.0)],
            world=World.alone(),
            run=tmp_path,
        )
    with pytest.raises(ValueError, match=r"^`grad_cam` finds no layer"):
        explain(
            functional(),
            probe,
            [partial(load_method("grad_cam"), layer="dense")],
            world=World.alone(),
            run=tmp_path,
        )


def test_a_method_is_committed_once_under_each_name_it_is_given(tmp_path: Path) -> None:
    probe = Probe(np.random.default_rng(0).random((5, 8, 8, 1), np.float32), np.arange(5) % 3)
    few = partial(integrated_gradients, n_steps=2)
    methods: Methods = {
        "from_black": few,
        "from_mean": partial(few, baseline="mean"),
        "saliency": "saliency",
    }
    model, sinks = functional(), [TensorBoard()]
    summary = explain(model, probe, methods, world=World.alone(), run=tmp_path / "run", sinks=sinks)
    explain(model, probe, [few, "saliency"], world=World.alone(), run=tmp_path / "plain")
    run, plain = open_explanations(tmp_path / "run"), open_explanations(tmp_path / "plain")

    assert run.methods(0) == ["from_black", "from_mean", "saliency"]
    assert summary.convergence_delta.keys() == {"from_black", "from_mean"}
    black, mean = run.explanation(0, "from_black"), run.explanation(0, "from_mean")
    assert [one.manifest.function for one in run] == [
        "integrated_gradients",
        "integrated_gradients",
        "saliency",
    ]
    assert [one.manifest.options.get("baseline") for one in run] == ["zero", "mean", None]
    np.testing.assert_array_equal(
        black.attributions(), plain.explanation(0, "integrated_gradients").attributions()
    )
    assert not np.allclose(black.attributions(), mean.attributions())
    assert run.config["methods"]["from_mean"] == {"integrated_gradients": mean.manifest.options}  # type: ignore[index, call-overload]  # JSON
    assert set(plain.config["methods"]) == {"integrated_gradients", "saliency"}  # type: ignore[arg-type]  # JSON
    assert run.config["methods"]["saliency"] == plain.config["methods"]["saliency"]  # type: ignore[index, call-overload]  # JSON
    assert verify(tmp_path / "run", deep=True) == []
    (events,) = (tmp_path / "run/tensorboard/explanations").iterdir()
    assert all(f"{name}/panel".encode() in events.read_bytes() for name in methods)


def test_a_run_of_channels_first_is_read_as_that_of_channels_last(tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).random((3, 6, 5, 2), np.float32)
    samples, thumbnails = {}, {}
    for channels in get_args(Channels)[:2]:
        values = inputs if channels == "last" else inputs.transpose(0, 3, 1, 2)
        probe = Probe(np.ascontiguousarray(values), np.arange(3))
        path = tmp_path / channels
        methods: Methods = ["saliency", load_method("occlusion"), "grad_cam"]
        explain(of_places(channels), probe, methods, world=World.alone(), run=path)
        run = open_explanations(path)
        assert {one.manifest.channels for one in run} == {channels}
        assert verify(path, deep=True) == []
        samples[channels] = read_samples(list(run), np.arange(3), run.probe())
        thumbnails[channels] = run.explanation(0, "saliency").thumbnails()
        axes = "y x channel" if channels == "last" else "channel y x"
        stored = run.explanation(0, "saliency").to_xarray()["attributions"]
        assert stored.dims[-3:] == tuple(axes.split())
    # float16 keeps three digits of each attribution
    close = partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-4)
    close(thumbnails["first"], thumbnails["last"])
    for first, last in zip(samples["first"], samples["last"], strict=True):
        np.testing.assert_array_equal(first.inputs, last.inputs)
        assert first.facts == last.facts
        for got, want in zip(first.panels, last.panels, strict=True):
            assert got.method == want.method
            close(got.attributions, want.attributions)
