"""`hvd-xai diff` as a user runs it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvd_xai import open_explanations
from hvd_xai.analysis.drift import cosine_similarity
from hvd_xai.cli.main import main
from hvd_xai.views import pixels
from hvd_xai.views.arrays import draw_over_input
from hvd_xai.views.samples import Panel, Sample
from tests.runs_under_test import add_explanation, make_probe, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", make_probe(), epochs=[0, 1, 4])


def diff(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["hvd-xai", "diff", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_samples_that_changed_most_come_first(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        diff(
            monkeypatch,
            run,
            "--epoch",
            4,
            "--epoch",
            0,
            "--method",
            "integrated_gradients",
            "--top",
            3,
        )
        == 0
    )
    said = capfd.readouterr().out
    before, after = (
        open_explanations(run).explanation(epoch, "integrated_gradients") for epoch in (0, 4)
    )
    cosines = cosine_similarity(before.thumbnails(), after.thumbnails())
    assert f"epoch 0 to 4: mean cosine {cosines.mean():.3f}" in said
    listed = re.findall(r"^ *(\d+) +(-?\d\.\d{3})", said, re.MULTILINE)
    rows = np.argsort(cosines)[:3]
    assert listed == [(str(before.column("sample_id")[row]), f"{cosines[row]:.3f}") for row in rows]


def test_they_are_drawn_with_the_earlier_epoch_first(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "changed.png"
    assert (
        diff(
            monkeypatch,
            run,
            "--epoch",
            0,
            "--epoch",
            1,
            "--method",
            "grad_cam",
            "--top",
            1,
            "--png",
            picture,
        )
        == 0
    )
    sample_id = int(capfd.readouterr().out.splitlines()[2].split()[0])
    explanations = open_explanations(run)
    probe = explanations.probe()
    assert probe is not None
    with Image.open(picture) as image:
        lines = [line.tobytes() for line in np.asarray(image.convert("RGB"))]
    (row,) = explanations.explanation(0, "grad_cam").rows_of(np.array([sample_id])).tolist()
    shown = [
        explanations.explanation(epoch, "grad_cam").attributions(row, row + 1)[0]
        for epoch in (0, 1)
    ]
    inputs = probe.inputs(np.array([row]))[0]
    panels = [Panel("grad_cam", 0, values, 1, 1.0) for values in shown]
    sample = Sample(0, 1, 1, tuple(panels), inputs, probe.facts)
    limit = max(draw_over_input(panel, sample, 104).limit for panel in panels)
    drawn = [draw_over_input(panel, sample, 104, limit).image[50].tobytes() for panel in panels]
    places = [max(line.find(one) for line in lines) for one in drawn]
    assert 0 < places[0] < places[1]


def test_a_method_without_sign_is_drawn_on_the_scale_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = make_probe()
    run = make_run(tmp_path / "run", probe, epochs=[])
    for epoch in (0, 1):
        add_explanation(run / "explanations", probe, epoch, "squaregrad", (8, 8, 1))
    assert (
        diff(monkeypatch, run, "--epoch", 0, "--epoch", 1, "--png", tmp_path / "changed.png") == 0
    )
    with Image.open(tmp_path / "changed.png") as image:
        assert (
            (np.asarray(image.convert("RGB")) == pixels.sequential(np.zeros(1, np.float32), 1.0))
            .all(axis=-1)
            .any()
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch", 1], "give two epochs"),
        (["--epoch", 1, "--epoch", 9], "no method at both epochs 1 and 9"),
        (["--epoch", 0, "--epoch", 1, "--png", "x.png"], "a picture shows one method"),
    ],
)
def test_what_cannot_be_compared_is_said(
    run: Path,
    words: list[object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert diff(monkeypatch, run, *words) == 1
    assert message in capfd.readouterr().err
