import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hvd_xai.storage import staging
from hvd_xai.storage.durable import STAGING
from hvd_xai.storage.staging import MAX_AGE, Lease, Staging, leftovers, sweep


def write_lease(directory: Path, lease: Lease, age: float = 0) -> Path:
    """Leaves a staging directory behind as the lease's process would."""
    directory.mkdir()
    (directory / "file").write_text("half written")
    path = directory.with_name(f"{directory.name}.lease")
    path.write_text(json.dumps(asdict(lease)))
    os.utime(path, (time.time() - age, time.time() - age))
    return directory


def dead_process() -> Lease:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return replace(Lease.own(), pid=process.pid, started="123")


def test_discard_does_not_raise_where_nothing_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    staged = Staging(tmp_path / "run", "epoch")
    (tmp_path / "run").rename(tmp_path / "away")
    # not a directory: an error that is neither "not there" nor held off by permissions of root
    (tmp_path / "run").touch()
    staged.discard()
    assert staged.directory.name in {path.name for path in (tmp_path / "away").iterdir()}


def test_discard_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    staged = Staging(tmp_path, "x")
    assert leftovers(tmp_path) == [staged.directory]
    staged.discard()
    staged.discard()
    assert list(tmp_path.iterdir()) == []


def test_publish_renames_whole_and_leaves_no_lease(tmp_path: Path) -> None:
    staged = Staging(tmp_path, "x")
    (staged.directory / "file").write_text("content")
    staged.publish(tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_publish_replaces_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "file").write_text("old")
    staged = Staging(tmp_path, "x")
    (staged.directory / "file").write_text("new")
    with pytest.raises(FileExistsError):
        staged.publish(tmp_path / "final")
    staged.publish(tmp_path / "final", replace=True)
    assert [(path.name, (path / "file").read_text()) for path in tmp_path.iterdir()] == [
        ("final", "new")
    ]


def test_sweep_spares_a_writer_at_work(tmp_path: Path) -> None:
    staged = Staging(tmp_path, "x")
    os.utime(tmp_path / f"{staged.directory.name}.lease", (0, 0))
    assert sweep(tmp_path) == []
    assert staged.directory.is_dir()


def test_sweep_removes_what_a_dead_process_left(tmp_path: Path) -> None:
    left = write_lease(tmp_path / ".staging-x-1", dead_process())
    assert sweep(tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_sweep_is_not_fooled_by_a_reused_pid(tmp_path: Path) -> None:
    left = write_lease(tmp_path / ".staging-x-1", replace(Lease.own(), started="1"))
    assert sweep(tmp_path) == [left]


@pytest.mark.parametrize(
    "change", [{"host": "elsewhere"}, {"boot": "another"}, {"namespace": "pid:[1]"}]
)
def test_processes_elsewhere_are_swept_by_age_alone(tmp_path: Path, change: dict[str, str]) -> None:
    elsewhere = replace(dead_process(), **change)  # type: ignore[arg-type]  # fields that are strings
    young = write_lease(tmp_path / ".staging-x-1", elsewhere, age=MAX_AGE - 100)
    old = write_lease(tmp_path / ".staging-x-2", elsewhere, age=MAX_AGE + 100)
    assert sweep(tmp_path) == [old]
    assert young.is_dir()


def test_renewed_lease_is_young(tmp_path: Path) -> None:
    staged = Staging(tmp_path, "x")
    lease = tmp_path / f"{staged.directory.name}.lease"
    os.utime(lease, (0, 0))
    staged.renew()
    assert time.time() - lease.stat().st_mtime < 100


def test_killed_process_that_nobody_waited_for_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lease = replace(Lease.own(), pid=process.pid, started=staging._started(process.pid))
        assert not lease.is_dead()
        process.kill()
        deadline = time.monotonic() + 10
        while not lease.is_dead() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.is_dead()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_unreadable_lease_is_swept_soon_unless_something_is_staged(
    tmp_path: Path, content: str
) -> None:
    lone, used = tmp_path / ".staging-x-1.lease", tmp_path / ".staging-x-2.lease"
    (tmp_path / ".staging-x-2").mkdir()
    for lease in (lone, used):
        lease.write_text(content)
    assert sweep(tmp_path) == []
    for lease in (lone, used):
        os.utime(lease, (time.time() - 100, time.time() - 100))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".staging-x-2",
        ".staging-x-2.lease",
    ]


def test_file_without_a_lease_is_swept_by_age(tmp_path: Path) -> None:
    for name, age in ((".staging-old", MAX_AGE + 100), (".staging-young", 0)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".staging-young"]


def test_sweep_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    link = tmp_path / ".staging-x-1"
    link.symlink_to(tmp_path / "precious")
    (tmp_path / ".staging-x-1.lease").write_text(json.dumps(asdict(dead_process())))
    sweep(tmp_path)
    assert not link.is_symlink()
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_a_lease_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{STAGING}x.lease")
    assert sweep(tmp_path) == []
    os.utime(tmp_path / f"{STAGING}x.lease", (0, 0))
    assert sweep(tmp_path) == [tmp_path / f"{STAGING}x"]
    assert list(tmp_path.iterdir()) == []
