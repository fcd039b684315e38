"""The script in the README, taken from it, under each launcher."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import ROOT, Launcher, launch

pytestmark = pytest.mark.launched


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun", "gloo"])
def test_the_script_trains_and_explains(launcher: Launcher, tmp_path: Path) -> None:
    script, notebook = _blocks()
    (tmp_path / "script.py").write_text(script)
    ended = launch(launcher, 2, sys.executable, "script.py", cwd=tmp_path)
    assert ended.code == 0, ended.output[-4000:]
    run = open_explanations(tmp_path / "runs/script")
    assert run.epochs == [0, 1, 2]
    assert all(explanation.manifest.world_size == 2 for explanation in run)
    assert not verify(tmp_path / "runs/script", deep=True)

    names: dict[str, object] = {}
    exec(
        compile(
            notebook.replace('"runs/script"', repr(str(tmp_path / "runs/script"))),
            "README.md",
            "exec",
        ),
        names,
    )
    assert isinstance(names["attributions"], np.ndarray)
    assert names["attributions"].shape == (16, 8, 8, 1)
