"""`hvd-xai export` as a user runs it."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.cli.main import main
from tests.runs_under_test import make_probe, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run", make_probe(), epochs=[0, 1])


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["hvd-xai", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_all_is_exported_unless_something_is_asked_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(monkeypatch, run, "--to", tmp_path / "all.npz") == 0
    assert (
        export(
            monkeypatch, run, "--to", tmp_path / "one.npz", "--epoch", "1", "--method", "grad_cam"
        )
        == 0
    )
    with np.load(tmp_path / "all.npz") as every, np.load(tmp_path / "one.npz") as one:
        assert {name.partition("/")[0] for name in every} == {"grad_cam", "integrated_gradients"}
        assert every["grad_cam/epoch"].tolist() == [0, 1]
        assert {name.partition("/")[0] for name in one} == {"grad_cam"}
        np.testing.assert_array_equal(
            one["grad_cam/attributions"][0], every["grad_cam/attributions"][1]
        )


def test_a_file_is_not_replaced_by_accident(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.npz").write_text("somebody's data")
    assert export(monkeypatch, run, "--to", tmp_path / "there.npz") == 1
    assert "there.npz exists. Give another name, or replace it with --overwrite" in " ".join(
        capfd.readouterr().err.split()
    )
    assert (tmp_path / "there.npz").read_text() == "somebody's data"
    assert (
        export(
            monkeypatch,
            run,
            "--to",
            tmp_path / "there.npz",
            "--overwrite",
            "--epoch",
            "0",
            "--method",
            "grad_cam",
        )
        == 0
    )
    with np.load(tmp_path / "there.npz") as replaced:
        assert replaced["grad_cam/epoch"].tolist() == [0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch", "7"], "no explanation of epoch 7; there are the epochs 0-1"),
        (
            ["--method", "occlusion"],
            "no explanation by 'occlusion'; methods with one: grad_cam, integrated_gradients",
        ),
    ],
)
def test_what_is_not_there_is_said(
    run: Path,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert export(monkeypatch, run, "--to", tmp_path / "out.npz", *words) == 1
    assert message in capfd.readouterr().err
