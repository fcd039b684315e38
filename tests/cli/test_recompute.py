"""`hvd-xai recompute` as a user runs it: what it prints, and how it ends."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.attributions.smoothgrad import smoothgrad
from hvd_xai.checkpoint.json_record import seal
from hvd_xai.cli.main import main
from hvd_xai.explain.once import explain
from hvd_xai.probe.probe import Probe
from hvd_xai.protocols import Json, Methods
from hvd_xai.ranks.world import World
from tests.models_under_test import functional

EPOCH = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    probe = Probe(generator.random((23, 8, 8, 1), np.float32), np.arange(23) % 3, np.arange(23) * 3)
    model = functional()
    folder = tmp_path_factory.mktemp("recompute")
    model.save(folder / "model.keras")
    of_path = partial(integrated_gradients, n_steps=6, rule="gauss_legendre")
    methods: Methods = {
        "integrated_gradients": of_path,
        "from_mean": partial(of_path, baseline="mean"),
        "grad_cam": grad_cam,
        "smooth": partial(smoothgrad, n_samples=2),
    }
    explain(model, probe, methods, world=World.alone(), run=folder / "run", epoch=EPOCH)
    return folder


def _forge(run: Path, method: str, **changes: Json) -> None:
    """Makes a manifest say something else, and mends its digest."""
    path = run / "explanations" / "epochs" / f"{EPOCH:06d}" / method / "manifest.json"
    record = json.loads(path.read_text())
    record.pop("digest")
    path.write_bytes(seal({**record, "options": {**record["options"], **changes}}))


def _main(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["hvd-xai", "recompute", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_ends_with_0_or_1(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ("--model", run / "model.keras", "--sample", "3")
    assert _main(monkeypatch, run / "run", *words) == 0
    assert capfd.readouterr().out.count("matches, equal to the bit (tolerance 9.8e-04)") == 4
    assert _main(monkeypatch, run / "run", *words, "--sample", str(2**63)) == 2
    forged = (run / "run").rename(tmp_path / "forged")
    _forge(forged, "integrated_gradients", n_steps=1)
    assert _main(monkeypatch, forged, *words, "--method", "integrated_gradients") == 1
    assert "DIFFERS, largest difference" in capfd.readouterr().out
    _forge(forged, "integrated_gradients", score="my_score")
    assert _main(monkeypatch, forged, *words) == 1
    assert "recorded by its name alone" in capfd.readouterr().err
    _forge(forged, "integrated_gradients", score="output", n_steps=6)
    forged.rename(run / "run")


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("from_mean", ["from_mean"]),
        ("integrated_gradients", ["integrated_gradients"]),
        ("smoothgrad", ["smooth"]),
        (
            "hvd_xai.attributions.integrated_gradients:integrated_gradients",
            ["from_mean", "integrated_gradients"],
        ),
    ],
)
def test_the_command_takes_what_is_committed_under_a_name_or_is_of_a_method(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    method: str,
    names: list[str],
) -> None:
    assert (
        _main(
            monkeypatch,
            run / "run",
            "--model",
            run / "model.keras",
            "--sample",
            "3",
            "--method",
            method,
        )
        == 0
    )
    assert (
        re.findall(r"^epoch 2  (\w+)  sample 3: matches", capfd.readouterr().out, re.MULTILINE)
        == names
    )


def test_the_command_says_what_there_is_where_a_method_was_not_explained(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        _main(
            monkeypatch,
            run / "run",
            "--model",
            run / "model.keras",
            "--sample",
            "3",
            "--method",
            "saliency",
        )
        == 1
    )
    assert (
        "has no explanation 'saliency' of epoch 2; epoch 2 has from_mean, grad_cam"
        in capfd.readouterr().err
    )
