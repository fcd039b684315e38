"""`hvd-xai explain`, killed and resumed, leaves what an undisturbed job leaves."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import BIN, Commands, launch, launch_commands, start
from tests.models_under_test import functional

pytestmark = pytest.mark.launched

N = 2048
HVD_XAI = str(BIN / "hvd-xai")


@dataclass(frozen=True, slots=True)
class Explained:
    """A data set that two hosts explained on a shared disk, and the command that did so."""

    folder: Path
    words: tuple[str, ...]
    commands: Commands


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """Explains a data set, after a dry run for some of it."""
    folder = tmp_path_factory.mktemp("explained")
    model, data, few = (str(folder / name) for name in ("model.keras", "data.npz", "few.npz"))
    functional().save(model)
    inputs = np.random.default_rng(0).random((N, 8, 8, 1), np.float32)
    np.savez(data, inputs=inputs, targets=np.arange(N) % 3)
    np.savez(few, inputs=np.zeros((9, 8, 8, 1), np.float32), targets=np.arange(9) % 3)
    here = folder / "here"
    here.mkdir()
    methods = ("--method", "saliency", "--method", "grad_cam")
    words = ("explain", model, data, "--set", "n_steps=128", "--output")
    commands = {
        "dry run": ["hvd-xai", "explain", model, few, *methods, "--dry-run"],
        "whole": ["hvd-xai", *words, str(folder / "whole")],
    }
    return Explained(folder, words, launch_commands("two hosts", 2, folder, commands, cwd=here))


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(explained: Explained) -> None:
    said = explained.commands.text("dry run")
    assert re.search(r"^saliency +9 .*\n(grad_cam +9 .*\n)together +18 ", said, re.MULTILINE)
    assert list((explained.folder / "here").iterdir()) == []


def test_a_killed_job_is_resumed_to_the_bit(explained: Explained, tmp_path: Path) -> None:
    assert f"{N} samples are explained" in explained.commands.text("whole")
    words = explained.words

    run = tmp_path / "killed"
    with start("mpirun", 2, HVD_XAI, *words, str(run)) as job:
        # killed once some rows are there: they count when their hashes are written, last of all
        assert job.until(
            lambda: any(path.stat().st_size for path in run.glob("unfinished/rows/*/.hashes"))
        )
        os.killpg(job.process.pid, signal.SIGKILL)
    assert open_explanations(run).epochs == []

    resumed = launch("mpirun", 2, HVD_XAI, *words, str(run), "--resume")
    assert resumed.code == 0, resumed.output[-4000:]
    assert "rows of integrated_gradients are there already" in resumed.output
    assert sorted(path.name for path in run.iterdir()) == [".lock", "explanations"]
    assert verify(run, deep=True) == []
    first, second = (
        open_explanations(path).explanation(0, "integrated_gradients").manifest
        for path in (explained.folder / "whole", run)
    )
    assert {file.key: file.xxh3_128 for file in first.files} == {
        file.key: file.xxh3_128 for file in second.files
    }
    assert open_explanations(run).config["data"] == words[2]
