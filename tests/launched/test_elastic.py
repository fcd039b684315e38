"""Elastic jobs from outside: hosts are lost, leave and join, a rank fails.

Horovod wants a job's hosts to have different names, and reaches them over ssh. Here each host is an
address of the loopback device, which has all of 127.0.0.0/8, and a stand-in for ssh runs the
command that a host is sent. Everything else is as on real hosts: the launcher's discovery, its
verdict on hosts that fail, the rendezvous, Gloo's connections.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import Explanations, open_explanations
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import HOROVODRUN, ROOT, environment
from tests.processes import run

pytestmark = pytest.mark.launched

TRAINING = str(Path(__file__).with_name("elastic.py"))
EPOCHS, N_ROWS, BATCH = 6, 96, 8  # as in the training
# of the largest attribution: they are kept as float16 and were computed in micro-batches of other
# make-up
ROUNDING = 2e-3

SSH = """#!/bin/sh
# ssh [-o option]... HOST COMMAND, where every host is this machine
while [ "$1" = -o ]; do shift 2; done
shift
exec sh -c "$*"
"""


@dataclass(frozen=True, slots=True)
class Job:
    """How a job ended, and what its ranks said."""

    code: int
    output: str
    run: Path

    @property
    def said(self) -> list[dict[str, object]]:
        """Returns the ranks' lines."""
        lines = (
            line.partition("said ")[2] for line in self.output.splitlines() if "said {" in line
        )
        return [json.loads(line) for line in lines]

    def sizes(self) -> dict[int, int]:
        """Returns how many ranks explained each epoch, by its manifest."""
        run = open_explanations(self.run)
        return {
            epoch: run.explanation(epoch, "grad_cam").manifest.world_size for epoch in run.epochs
        }


def _launch(folder: Path, *events: str) -> Job:
    """Starts two hosts of one rank each, and lets the events happen to them."""
    hosts, discovery, ssh = folder / "hosts", folder / "discovery", folder / "bin" / "ssh"
    ssh.parent.mkdir()
    hosts.write_text("127.0.0.2:1\n127.0.0.3:1\n")
    for script, text in ((discovery, f"#!/bin/sh\ncat {hosts}\n"), (ssh, SSH)):
        script.write_text(text)
        script.chmod(0o755)
    limits = [
        "-np",
        "2",
        "--min-np",
        "1",
        "--max-np",
        "2",
        "--network-interfaces",
        "lo",
        "--host-discovery-script",
        str(discovery),
    ]
    env = environment({"HOROVOD_GLOO_TIMEOUT_SECONDS": "600", "HVD_XAI_DEADLINE": "600"})
    env["PATH"] = f"{ssh.parent}:{env['PATH']}"
    words = [
        *HOROVODRUN,
        "--gloo",
        *limits,
        sys.executable,
        TRAINING,
        str(folder / "run"),
        str(hosts),
        *events,
    ]
    ended = run(words, env=env, cwd=ROOT)
    return Job(ended.code, ended.output, folder / "run")


def _check_whole(job: Job) -> None:
    """Checks that every epoch is explained, on weights of all ranks, as in one process."""
    assert job.code == 0, job.output[-6000:]
    assert open_explanations(job.run).epochs == list(range(EPOCHS))
    assert not verify(job.run, deep=True)
    assert not list(job.run.rglob(".staging-*"))
    for epoch in range(EPOCHS):
        lines = [line for line in job.said if line.get("epoch") == epoch]
        assert len({line["weights"] for line in lines}) == 1
        # one for each method, however often the ranks changed
        assert {line["traces"] for line in lines} == {2}
    for line in (line for line in job.said if line.get("ended")):
        # SGD with momentum 1/2 and learning rate 2^-7, on a gradient that is always 1: what is
        # averaged over a wrong number of ranks, or what is not restored with the momentum, ends
        # elsewhere
        n = int(str(line["step"]))
        assert line["count"] == pytest.approx(-(2**-6) * (n - 1 + 0.5**n), rel=1e-6)


def test_training_goes_on_when_the_root_is_killed_a_host_joins_and_one_is_taken_away(
    tmp_path: Path,
) -> None:
    job = _launch(tmp_path, "1:2:kill-0", "2:1:add-127.0.0.4", "4:2:remove-1")
    _check_whole(job)
    assert job.sizes() == {0: 2, 1: 1, 2: 1, 3: 2, 4: 2, 5: 1}
    (ended,) = [line for line in job.said if line.get("ended")]
    # the third batch of epoch 1 was the killed root's last; two were committed
    assert ended["begun"] == [[0, 0, 2], [1, 2, 1], [3, 0, 2], [5, 0, 1]]
    alone, together = N_ROWS // BATCH, N_ROWS // BATCH // 2
    assert ended["step"] == together + alone + alone + 2 * together + alone
    _compare_with_one_rank(open_explanations(job.run), tmp_path)


def _compare_with_one_rank(run: Explanations, folder: Path) -> None:
    """Compares each epoch's rows with those of the same weights explained by one rank."""
    import keras

    from hvd_xai import Probe, World
    from hvd_xai.checkpoint.run_directory import RunDirectory
    from hvd_xai.explain.once import explain

    probe = run.probe()
    assert probe is not None
    again = Probe(probe.inputs(slice(None)), probe.column("targets"))
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    for epoch in (1, 3):
        with np.load(folder / f"weights-{epoch}.npz") as saved:
            # all but the count, which is a number
            model.set_weights([saved[name] for name in saved.files if saved[name].ndim])
        alone = folder / f"alone-{epoch}"
        explain(
            model,
            again,
            ["integrated_gradients", "grad_cam"],
            world=World.alone(),
            run=RunDirectory(alone),
            epoch=epoch,
        )
        for method in ("integrated_gradients", "grad_cam"):
            ours, theirs = (
                run.explanation(epoch, method),
                open_explanations(alone).explanation(epoch, method),
            )
            np.testing.assert_array_equal(ours.column("sample_id"), theirs.column("sample_id"))
            largest = float(np.abs(theirs.attributions()).max())
            np.testing.assert_allclose(
                ours.attributions(), theirs.attributions(), atol=ROUNDING * largest
            )


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", "RuntimeError: rank 1 has had enough"),
        ("exit", "it exited while it trained, with 0"),
    ],
)
def test_an_error_of_one_rank_ends_the_job_and_is_said(
    what: str, says: str, tmp_path: Path
) -> None:
    job = _launch(tmp_path, f"1:2:{what}-1")
    assert job.code != 0
    assert says in job.output
    assert "PeerError: training: rank 1 on" in job.output  # the other rank could have gone on alone
    assert not [line for line in job.said if line.get("ended")]
    assert open_explanations(job.run).epochs == [0]
    assert not verify(job.run, deep=True)
