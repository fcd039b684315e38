"""`hvd-xai verify` as a user runs it."""

import json
import os
from pathlib import Path

import pytest

from hvd_xai.checkpoint.json_record import seal
from hvd_xai.cli.main import main
from tests.runs_under_test import make_probe, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_probe(), epochs=[0, 1])


def verify(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["hvd-xai", "verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def attribution_file(run: Path) -> Path:
    folder = run / "explanations" / "epochs" / "000001" / "grad_cam" / "attributions"
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_a_whole_run_ends_with_0(
    run: Path, deep: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify(monkeypatch, run, *deep) == 0
    assert "everything committed is whole" in capfd.readouterr().out


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_a_missing_file_ends_with_1_and_is_named_in_a_line(
    run: Path, deep: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = attribution_file(run)
    file.unlink()
    assert verify(monkeypatch, run, *deep) == 1
    first, last = capfd.readouterr().out.splitlines()
    assert str(file) in first
    assert "1 problem" in last


def test_a_changed_byte_is_found_by_reading_deep(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = attribution_file(run)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert verify(monkeypatch, run, "--deep") == 1
    assert str(file) in capfd.readouterr().out


def test_names_on_disk_forge_no_line_and_steer_no_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;OWNED\x07\x1b[31m\n\rok: all whole\u202e"
    epochs = run / "explanations" / "epochs"
    method = next((epochs / "000001").glob("*/manifest.json")).parent
    manifest = json.loads((method / "manifest.json").read_text())
    manifest.pop("digest")
    manifest["files"].append({"key": evil, "size": 1, "xxh3_128": "0" * 32})
    manifest["method"] = evil
    (method / "manifest.json").write_bytes(seal(manifest))
    method.rename(method.with_name(f"a{evil}"))
    (epochs / f".staging-{evil}").mkdir()
    assert verify(monkeypatch, run) == 1
    said = capfd.readouterr()
    *problems, last = said.out.splitlines()
    assert problems
    assert last.startswith(f"{run}: {len(problems)} problem")
    assert all(line.isprintable() for line in (*problems, *said.err.splitlines()))
    assert "\\x1b]0;OWNED\\x07" in said.out


def test_a_pipe_in_place_of_any_file_is_a_problem_and_is_not_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((run / "explanations").rglob("*")):
        # of two epochs alike the first; nothing of ours reads what a group says of itself
        if not path.is_file() or "000001" in path.parts or b'"group"' in path.read_bytes():
            continue
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        assert verify(monkeypatch, run, "--deep") == 1, path
        said = capfd.readouterr()
        assert str(path) in said.out + said.err
        path.unlink()
        path.write_bytes(content)
    assert verify(monkeypatch, run, "--deep") == 0


def test_what_was_not_committed_is_no_problem(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "explanations" / "epochs" / ".staging-000002-grad_cam-0a1b2c3d").mkdir()
    assert verify(monkeypatch, run) == 0


def test_no_run_is_one_line_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify(monkeypatch, tmp_path) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert str(tmp_path) in said.err
