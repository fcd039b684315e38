"""Samples, as they are read from committed explanations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.json_record import seal, unseal
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.probe.window import window_of
from hvd_xai.views.samples import Panel, Sample, read_samples, scale_panels
from tests.runs_under_test import add_explanation, make_probe, make_run


@pytest.mark.parametrize("with_probe", [True, False])
def test_samples_have_the_panels_of_the_explanations_in_order(
    tmp_path: Path, with_probe: bool
) -> None:
    probe = make_probe(first_id=100)
    run = open_explanations(make_run(tmp_path / "run", probe, epochs=[0, 1], with_probe=with_probe))
    explanations = list(run)
    first, second = read_samples(explanations, np.array([105, 101]), run.probe())
    assert (first.sample_id, second.sample_id, first.target) == (105, 101, 2)
    assert [(panel.method, panel.epoch) for panel in first.panels] == [
        (one.manifest.method, one.manifest.epoch) for one in explanations
    ]
    for panel, explanation in zip(second.panels, explanations, strict=True):
        np.testing.assert_array_equal(panel.attributions, explanation.attributions(1, 2)[0])
        assert panel.score == explanation.column("score")[1]
    deltas = [panel.convergence_delta is None for panel in first.panels]
    assert deltas == [panel.method == "grad_cam" for panel in first.panels]
    if with_probe:
        assert first.inputs is not None
        np.testing.assert_array_equal(first.inputs, probe.inputs[5])
        assert first.known.shape == (8, 8, 1)
    else:
        assert first.inputs is None


def test_channels_come_last_wherever_the_model_has_them(tmp_path: Path) -> None:
    probe = make_probe(shape=(3, 8, 9))
    path = make_run(tmp_path / "run", probe, epochs=[])
    explanations_dir = path / "explanations"
    of_inputs = add_explanation(
        explanations_dir, probe, 0, "integrated_gradients", (3, 8, 9), channels="first"
    )
    of_places = add_explanation(explanations_dir, probe, 0, "cam", (8, 9), channels="first")
    run = open_explanations(path)
    (sample,) = read_samples(list(run), np.array([1]), run.probe())
    assert sample.inputs is not None
    assert sample.facts is not None
    assert (sample.facts.shape, sample.facts.channels) == ((8, 9, 3), "last")
    np.testing.assert_array_equal(sample.inputs, probe.inputs[1].transpose(1, 2, 0))
    cam, own = (panel.attributions for panel in sample.panels)
    np.testing.assert_allclose(cam, of_places[1], atol=1e-3)
    np.testing.assert_allclose(own, of_inputs[1].transpose(1, 2, 0), atol=1e-3)
    assert sample.has_parts(sample.panels[1])


def test_only_attributions_of_the_inputs_have_parts(tmp_path: Path) -> None:
    probe = make_probe(shape=(3,), feature_names=("a", "b", "c"))
    run = open_explanations(make_run(tmp_path / "run", probe, epochs=[0], cam=False))
    add_explanation(tmp_path / "run" / "explanations", probe, 0, "units", (4,))
    (sample,) = read_samples(list(run), np.array([1]), run.probe())
    assert [sample.has_parts(panel) for panel in sample.panels] == [True, False]


def test_a_method_has_a_sign_if_it_is_negative_at_any_epoch_shown(tmp_path: Path) -> None:
    probe = make_probe()
    run = open_explanations(make_run(tmp_path / "run", probe, epochs=[0, 1]))
    (sample,) = read_samples(list(run), np.array([1]), run.probe())
    assert [panel.is_signed for panel in sample.panels] == [
        panel.method == "integrated_gradients" for panel in sample.panels
    ]


def test_panels_are_scaled_by_method_and_over_epochs() -> None:
    panels = [
        Panel("one", 0, np.array([1.0, -2.0]), 1, 1.0),
        Panel("one", 1, np.array([4.0, np.inf]), 1, 1.0),
        Panel("two", 0, np.array([0.0, 10.0]), 1, 1.0),
    ]
    assert scale_panels(panels).tolist() == [[0.25, -0.5], [1.0, np.inf], [0.0, 1.0]]


def test_without_a_probe_the_attributions_say_the_shape() -> None:
    panel = Panel("one", 0, np.zeros((4, 5), np.float32), 1, 1.0)
    sample = Sample(0, 1, 1, (panel,))
    assert sample.known.shape == (4, 5)
    assert replace(sample, inputs=np.zeros((8, 9, 1))).known.shape == (8, 9, 1)


def test_samples_share_the_window_that_the_probe_records(tmp_path: Path) -> None:
    probe = make_probe()
    run = open_explanations(make_run(tmp_path / "run", probe, epochs=[0]))
    samples = read_samples(list(run), np.array([1, 2]), run.probe())
    assert {sample.window for sample in samples} == {window_of(probe.inputs)}


def test_samples_of_an_old_run_share_the_window_of_those_that_are_shown(tmp_path: Path) -> None:
    probe = make_probe()
    run = open_explanations(make_run(tmp_path / "run", probe, epochs=[0]))
    manifest = tmp_path / "run" / "explanations" / "probe" / "manifest.json"
    record = unseal(manifest.read_bytes(), "here").values
    manifest.write_bytes(
        seal({key: value for key, value in record.items() if key not in ("digest", "window")})
    )
    samples = read_samples(list(run), np.array([1, 2]), run.probe())
    assert {sample.window for sample in samples} == {window_of(probe.inputs[[1, 2]])}
