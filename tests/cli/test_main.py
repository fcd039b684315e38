import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import hvd_xai
from hvd_xai.cli.main import build, main
from tests import processes

ROOT = Path(hvd_xai.__file__).parents[1]
COMMANDS = sorted(
    path.stem.replace("_", "-")
    for path in (ROOT / "hvd_xai/cli").glob("*.py")
    if path.stem != "main" and f"\ndef {path.stem}(" in path.read_text("utf-8")
)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the program in this process; returns its exit code, and what it wrote to each stream."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hvd-xai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_every_module_is_a_command() -> None:
    listed = CliRunner().invoke(build(), ["--help"]).stdout
    registered = set(typer.main.get_command(build()).commands)  # type: ignore[attr-defined]  # a group, whose class typer keeps private
    assert registered == set(COMMANDS)
    assert {"train", "explain", "show", "doctor"} <= registered
    assert all(command in listed for command in registered)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command: str) -> None:
    done = CliRunner().invoke(build(), [command, "--help"])
    assert done.exit_code == 0
    assert f"hvd-xai {command}" in done.stdout


def test_help_needs_no_heavy_library() -> None:
    program = (
        "import sys\nfrom hvd_xai.cli.main import build\nbuild()\nheavy = {'tensorflow', 'keras',"
        " 'mpi4py', 'horovod'} & set(sys.modules); assert not heavy, heavy\n"
    )
    done = processes.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.code == 0, done.output


def test_the_version_is_told(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("--version") == (0, f"{hvd_xai.__version__}\n", "")


def test_wrong_usage_ends_with_2_and_an_error_with_1(
    run: Callable[..., tuple[int, str, str]],
) -> None:
    assert run("copy")[0] == 2
    assert run("no-such-command")[0] == 2
    code, _, said = run("copy", "no_such_recipe")
    assert code == 1
    assert said.startswith("hvd-xai: error: there is no recipe 'no_such_recipe'")
    assert len(said.splitlines()) == 1


def test_the_traceback_is_shown_when_asked_for(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HVD_XAI_DEBUG", "1")
    assert "Traceback" in run("copy", "no_such_recipe")[2]


def test_a_package_that_was_left_out_is_named_with_what_brings_it(tmp_path: Path) -> None:
    (tmp_path / "keras.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')"
    )
    program = "from hvd_xai.cli.main import main; main()"
    words = [sys.executable, "-c", program, "train", "digits_cnn", "--output", "run"]
    done = processes.run(
        words,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "COLUMNS": "200"},
    )
    assert done.code == 1
    assert (
        done.stderr
        == "hvd-xai: error: 'keras' is not installed. Install it with: pip install 'hvd_xai[cpu]',"
        " or 'hvd_xai[gpu]'\n"
    )
