import contextlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from hvd_xai.cli import console
from hvd_xai.cli.console import Bar, Lines, program, progress, rank, report_errors, say
from hvd_xai.cli.main import main
from hvd_xai.errors import PeerError, RecipeError, mark_agreed
from hvd_xai.log import printable


def reported(error: Exception) -> int:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise error
    return int(ended.value.code or 0)


@pytest.mark.parametrize("error", [ValueError("bad"), OSError("bad"), RecipeError("bad")])
def test_an_error_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(error) == 1
    said = capsys.readouterr().err
    assert said.startswith("hvd-xai: error: bad")
    assert len(said.splitlines()) == 1


HOSTILE = "\x1b]0;OWNED\x07\x1b[31m\n\rok: all whole\u202e[red]x[/red][/]:bee:\\"


def test_an_error_that_names_a_hostile_file_is_one_line_and_steers_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reported(RecipeError(f"'{HOSTILE}' is no recipe")) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"hvd-xai: error: '{printable(HOSTILE)}' is no recipe"
    assert said.isprintable()
    monkeypatch.setenv("HVD_XAI_DEBUG", "1")
    assert reported(RecipeError(HOSTILE)) == 1
    trace = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback")
    assert all(line.isprintable() for line in trace)


def test_a_line_that_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("", f"{HOSTILE}: whole")
    assert capsys.readouterr().out == f"\n{printable(HOSTILE)}: whole\n"


def test_progress_shows_hostile_names_as_they_are_written(tmp_path: Path) -> None:
    screen, keyboard = os.openpty()
    with os.fdopen(keyboard, "w") as shown, progress(shown) as bar:
        bar.start(HOSTILE, 4)
        bar.advance()
        bar.say(HOSTILE)
    drawn = _read(screen)
    os.close(screen)
    assert b"[red]x[/red][/]:bee:" in drawn
    assert b"OWNED\x07" not in drawn
    assert "\u202e".encode() not in drawn
    with (tmp_path / "log").open("w") as file, progress(file) as lines:
        lines.say(HOSTILE)
    assert (tmp_path / "log").read_text() == f"{printable(HOSTILE)}\n"


def test_wrong_usage_steers_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a shell's pattern, such as runs/*, may have found these names
    for words in (["verify", "a", "\x1b[31mb"], ["\x1b[31mb"], ["show", "a", "--\x1b[31m"]):
        monkeypatch.setattr("sys.argv", ["hvd-xai", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "\\x1b[31m" in said
        assert "\x1b" not in said


def test_nothing_but_the_console_makes_consoles() -> None:
    # a console of rich's own takes names for markup; `print` elsewhere is ruff's to find
    for path in Path(console.__file__).parent.glob("*.py"):
        makes_one = re.search(r"(?<![\w.])Console\(", path.read_text("utf-8"))
        assert path.name == "console.py" or not makes_one, path


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(TypeError), report_errors():
        raise TypeError
    with pytest.raises(ModuleNotFoundError), report_errors():
        raise ModuleNotFoundError(name="a_module_of_the_users_own")


def test_what_all_ranks_know_only_the_root_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert reported(mark_agreed(PeerError("training", [(0, "a", "bad")]))) == 1
    assert capsys.readouterr().err == ""
    assert reported(OSError("no space")) == 1
    assert capsys.readouterr().err.startswith("hvd-xai: rank 1: error: no space")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("HOROVOD_RANK", "3", 3), ("SLURM_PROCID", "2", 2), ("PMI_RANK", "x", 0)],
)
def test_the_rank_is_what_the_launcher_says(
    variable: str, value: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    assert rank() == expected


def _read(screen: int) -> bytes:
    """Returns all that was shown, however many reads it takes.

    Once the last process has closed the terminal, reading fails.
    """
    shown = b""
    with contextlib.suppress(OSError):
        while block := os.read(screen, 65536):
            shown += block
    return shown


def test_a_terminal_gets_a_bar() -> None:
    screen, keyboard = os.openpty()
    with os.fdopen(keyboard, "w") as shown, progress(shown) as bar:
        assert isinstance(bar, Bar)
        bar.start("epoch [1]", 4)
        bar.advance(4)
        bar.say("a [line]")
        bar.start("epoch 2", 4)
    assert b"a [line]" in _read(screen)
    os.close(screen)


def test_a_launched_rank_draws_the_bar_on_the_launchers_terminal_and_sends_lines_through_it(
    tmp_path: Path,
) -> None:
    program = (
        "import sys; from hvd_xai.cli.console import Bar, progress\n"
        "with progress() as bar:\n"
        "    assert isinstance(bar, Bar)\n"
        "    bar.start('epoch 1', 4)\n"
        "    bar.say('a line')\n"
    )
    pid, screen = os.forkpty()
    # the new process has the terminal, but its standard error is a file, as it is a pipe under a
    # launcher
    if pid == 0:
        log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 2)
        os.execve(
            sys.executable,
            [sys.executable, "-c", program],
            {**os.environ, "OMPI_COMM_WORLD_RANK": "0"},
        )
    shown = _read(screen)
    assert os.waitpid(pid, 0)[1] == 0, (tmp_path / "log").read_text()
    assert b"epoch 1" in shown
    assert (tmp_path / "log").read_text() == "a line\n"


def test_a_pipe_gets_plain_lines_and_short_work_none(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as shown, progress(shown) as lines:
        assert isinstance(lines, Lines)
        lines.start("epoch 1", 2)
        lines.advance(2)
        lines.say("done")
    assert (tmp_path / "log").read_text() == "done\n"


def test_long_work_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.0)
    with (tmp_path / "log").open("w") as shown, progress(shown) as lines:
        lines.start("epoch 1", 2)
        lines.advance()
    assert (tmp_path / "log").read_text().startswith("epoch 1: 1/2, ")


def test_only_the_root_shows_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOROVOD_RANK", "1")
    with (tmp_path / "log").open("w") as shown, progress(shown) as quiet:
        quiet.start("epoch 1", 2)
        quiet.say("done")
    assert (tmp_path / "log").read_text() == ""


def test_a_program_is_named_as_the_users_own_path_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "my env"
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.with_name("tool").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setenv("PATH", str(python.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    # make put it on the PATH, for itself alone
    assert shlex.split(program("tool")) == ["my env/bin/tool"]
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    assert program("tool") == "tool"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert shlex.split(program("tool")) == ["my env/bin/tool"]
