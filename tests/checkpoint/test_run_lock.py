"""Two processes never write to one run, whatever they do to the file of the lock."""

import subprocess
import sys
from pathlib import Path

import pytest

from hvd_xai.checkpoint.run_lock import RunLock
from hvd_xai.errors import RunExistsError

# Locks the run, forks, and does to the run what a job may do: reads every file of it once.
OWNER = """
import os, sys
from pathlib import Path
from hvd_xai.checkpoint.run_lock import RunLock
from hvd_xai.errors import RunExistsError
path = Path(sys.argv[1])
lock = RunLock(path)
for file in path.rglob("*"):
    file.read_bytes()
child = os.fork()
if child == 0:
    try:
        RunLock(path)
    except RunExistsError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
input()
lock.close()
print("closed", flush=True)
input()
"""


def test_a_run_is_locked_for_other_processes_until_its_owner_lets_go(tmp_path: Path) -> None:
    run, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(run)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[2],
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        # its forked child is another process, and was refused
        assert owner.stdout.readline() == "7\n"
        for path in (run, link):
            with pytest.raises(RunExistsError, match="another job is writing"):
                RunLock(path)
        (run / ".lock").unlink()
        with pytest.raises(RunExistsError):
            RunLock(run)
        owner.stdin.write("\n")
        assert owner.stdout.readline() == "closed\n"
        RunLock(run).close()
        owner.kill()


def test_one_process_may_lock_a_run_several_times(tmp_path: Path) -> None:
    first, again = RunLock(tmp_path / "run"), RunLock(tmp_path / "run")
    first.close()
    first.close()
    again.close()
    RunLock(tmp_path / "run").close()
