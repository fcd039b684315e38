"""`hvd-xai explain` as a user starts it: killed, resumed, and then as if it had not been killed."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import BIN, launch, start
from tests.models_under_test import functional

pytestmark = pytest.mark.launched

N = 2048
HVD_XAI = str(BIN / "hvd-xai")


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(tmp_path: Path) -> None:
    functional().save(tmp_path / "model.keras")
    np.savez(
        tmp_path / "data.npz", inputs=np.zeros((9, 8, 8, 1), np.float32), targets=np.arange(9) % 3
    )
    words = (
        "explain",
        str(tmp_path / "model.keras"),
        str(tmp_path / "data.npz"),
        "--method",
        "saliency",
        "--method",
        "grad_cam",
        "--dry-run",
    )
    ended = launch("mpirun", 2, HVD_XAI, *words, cwd=tmp_path)
    assert ended.code == 0, ended.output[-4000:]
    assert re.search(
        r"^saliency +9 .*\n(grad_cam +9 .*\n)together +18 ", ended.output, re.MULTILINE
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "model.keras"]


def test_a_killed_job_is_resumed_to_the_bit(tmp_path: Path) -> None:
    functional().save(tmp_path / "model.keras")
    inputs = np.random.default_rng(0).random((N, 8, 8, 1), np.float32)
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=np.arange(N) % 3)
    words = (
        "explain",
        str(tmp_path / "model.keras"),
        str(tmp_path / "data.npz"),
        "--set",
        "n_steps=128",
        "--output",
    )

    whole = launch("two hosts", 2, HVD_XAI, *words, str(tmp_path / "whole"))  # which share the disk
    assert whole.code == 0, whole.output[-4000:]
    assert f"{N} samples are explained" in whole.output

    run = tmp_path / "killed"
    with start("mpirun", 2, HVD_XAI, *words, str(run)) as job:
        # killed once some rows are there
        assert job.until(
            lambda: any(
                path.stat().st_size for path in run.glob("unfinished/rows/*/convergence_delta")
            )
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
        for path in (tmp_path / "whole", run)
    )
    assert {file.key: file.xxh3_128 for file in first.files} == {
        file.key: file.xxh3_128 for file in second.files
    }
    assert open_explanations(run).config["data"] == str(tmp_path / "data.npz")
