import sys
from pathlib import Path

import pytest

from hvd_xai.environment.checks import installed
from hvd_xai.environment.checks.check import Machine


def test_what_is_installed_is_told_with_its_version() -> None:
    check = installed.numpy(Machine())
    assert check.status == "ok"
    assert check.found[0].isdigit()


def test_what_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # a Python with no packages
    check = installed.horovod(Machine())
    assert (check.status, check.advice) == ("failed", "hvd-xai install-horovod")
    assert installed.tensorflow(Machine()).advice == "pip install 'hvd_xai[cpu]'"
    assert installed.store(Machine()).status == "failed"


@pytest.mark.parametrize(("version", "status"), [((3, 9), "failed"), ((3, 12), "ok")])
def test_a_python_of_another_age_fails(
    version: tuple[int, int], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert installed.python(Machine()).status == status


def test_another_keras_backend_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    check = installed.keras_backend(Machine())
    assert check is not None
    assert check.status == "failed"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert installed.keras_backend(Machine()) is None
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    check = installed.keras_backend(Machine())
    assert check is not None
    assert check.found == "torch"
