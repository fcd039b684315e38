import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import hvd_xai
from hvd_xai.cli.main import build

ROOT = Path(hvd_xai.__file__).parents[1]
COMMANDS = sorted(
    path.stem.replace("_", "-")
    for path in (ROOT / "hvd_xai/cli").glob("*.py")
    if path.stem != "main" and f"\ndef {path.stem}(" in path.read_text("utf-8")
)


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = "from hvd_xai.cli.main import main; main()"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment}
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env=variables,
        timeout=120,
        check=False,
    )


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
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"{hvd_xai.__version__}\n"


def test_wrong_usage_ends_with_2_and_an_error_with_1() -> None:
    assert run("copy").returncode == 2
    assert run("no-such-command").returncode == 2
    done = run("copy", "no_such_recipe")
    assert done.returncode == 1
    assert done.stderr.startswith("hvd-xai: error: there is no recipe 'no_such_recipe'")
    assert len(done.stderr.splitlines()) == 1


def test_the_traceback_is_shown_when_asked_for() -> None:
    assert "Traceback" in run("copy", "no_such_recipe", HVD_XAI_DEBUG="1").stderr


def test_a_package_that_was_left_out_is_named_with_what_brings_it(tmp_path: Path) -> None:
    (tmp_path / "keras.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'keras'\", name='keras')"
    )
    done = run("train", "digits_cnn", "--output", "run", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 1
    assert (
        done.stderr
        == "hvd-xai: error: 'keras' is not installed. Install it with: pip install 'hvd_xai[cpu]',"
        " or 'hvd_xai[gpu]'\n"
    )
