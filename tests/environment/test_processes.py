import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvd_xai.environment.processes import Ended, count_cores, find_program, run, started


def test_a_program_that_hangs_is_ended() -> None:
    assert run(["sh", "-c", "echo begun; sleep 60"], limit=0.5) == Ended(None, "begun\n", "")


def _is_running(number: int) -> bool:
    """Returns whether a process runs; a dead one keeps its number until somebody waits for it."""
    stat = Path("/proc", str(number), "stat")
    try:
        return stat.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ends(number: int) -> bool:
    deadline = time.monotonic() + 60
    while _is_running(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _is_running(number)


def test_its_children_end_with_it() -> None:
    began = time.monotonic()
    ended = run(["sh", "-c", "sleep 300 & echo $!; wait"], limit=0.5)
    assert time.monotonic() - began < 100  # the child holds the pipe for 300 s
    assert _ends(int(ended.stdout))


def test_a_program_that_does_not_exist_is_no_error(tmp_path: Path) -> None:
    ended = run([str(tmp_path / "no such program")])
    assert ended.code == 127
    assert "no such program" in ended.last_line


def test_both_streams_and_the_input_are_kept_apart() -> None:
    ended = run(["sh", "-c", "cat; echo bad >&2; exit 3"], text="hello\n")
    assert ended == Ended(3, "hello\n", "bad\n")
    assert ended.output == "hello\nbad\n"
    assert ended.last_line == "bad"


def test_a_silent_program_is_said_to_be_silent() -> None:
    assert run(["true"]).last_line == "it said nothing"


def test_a_started_program_is_read_while_it_runs() -> None:
    environment = {**os.environ, "WORD": "hello"}
    with started(["sh", "-c", "echo $WORD; echo bad >&2; exit 3"], environment) as process:
        assert process.stdout is not None
        assert [line.strip() for line in process.stdout] == ["hello", "bad"]
    assert process.returncode == 3


def test_a_pipe_that_a_child_in_its_own_session_holds_is_not_waited_for() -> None:
    # what it said is not lost, and neither is how it ended
    ended = run(["sh", "-c", "setsid sleep 300 & echo begun $!; exit 3"], limit=1.0)
    begun, child = ended.stdout.split()
    assert (ended.code, begun) == (3, "begun")
    os.kill(int(child), signal.SIGKILL)


def test_a_started_program_ends_with_its_children_where_reading_fails() -> None:
    def read() -> None:
        with started(["sh", "-c", "sleep 300 & echo $!; wait"], os.environ) as process:
            assert process.stdout is not None
            children.append(int(process.stdout.readline()))
            raise KeyboardInterrupt

    children: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        read()
    assert _ends(children[0])


def test_a_program_beside_python_is_found_where_the_path_does_not_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("python", "tool"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert find_program("tool") == tmp_path / "tool"
    assert find_program("no-such-tool") is None
    found = find_program("sh")
    assert found is not None
    subprocess.run([found, "-c", "true"], check=True)


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
