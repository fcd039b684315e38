"""Users' mistakes end in one clear line and the same exit code on every rank.

Nothing hangs, and nothing is half-written.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.run_lock import RunLock
from hvd_xai.checkpoint.verify import verify
from tests.launched.launch import BIN, Said, environment, launch_commands
from tests.mounts import mounted
from tests.processes import run

pytestmark = pytest.mark.launched

RECIPE = """
import keras
import numpy as np
from hvd_xai import Data, Probe

def build() -> keras.Model:
    layers = keras.layers
    conv, dense = layers.Conv2D(2, 3, name="conv"), layers.Dense(3, name="dense")
    model = keras.Sequential([keras.Input((4, 4, 1)), conv, layers.Flatten(), dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model

def load(
    *, n_probe: int = 5, n_train: int = 8, nan: bool = False, size: int = 4, target: int = 0
) -> Data:
    x, y = np.zeros((n_train, 4, 4, 1), "float32"), np.zeros(n_train, "int32")
    inputs, targets = np.zeros((n_probe, size, size, 1), "float32"), np.zeros(n_probe, "int32")
    if nan:
        inputs[-1] = np.nan
    targets[-1:] = target
    return Data((x, y), (x, y), Probe(inputs, targets), batch_size=2)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Returns a folder on a file system of 256 KiB."""
    with mounted(tmp_path / "small", "size=256k") as place:
        yield place


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Returns a folder on a file system that cannot be written.

    Permission bits would not do: root passes over them.
    """
    with mounted(tmp_path / "read_only", "ro") as place:
        yield place


def _problems(name: str, message: str, of_ranks: list[Said]) -> Iterator[str]:
    """Returns what is wrong with one case; an empty list if nothing is."""
    said, codes = "".join(of.text for of in of_ranks), [of.code for of in of_ranks]
    expected = "2" if "not both" in message else "1" if message else "0"
    if set(codes) != {expected}:
        yield f"{name}: the ranks ended with {codes}, not {expected}: {said}"
    if message and not re.search(message, said, re.DOTALL):
        yield f"{name}: nothing says '{message}': {said}"
    if message and (
        "Traceback" in said or len(re.findall(r"^hvd-xai: .*error", said, re.MULTILINE)) > 1
    ):
        yield f"{name}: more than one line says it: {said}"


def test_every_mistake_is_one_clear_line_on_all_ranks(
    tmp_path: Path, small_disk: Path, read_only: Path
) -> None:
    recipe, empty, broken = tmp_path / "recipe.py", tmp_path / "empty.py", tmp_path / "broken.py"
    recipe.write_text(RECIPE)
    empty.write_text('"""Nothing here."""\n')
    broken.write_text("def build(:\n")
    (tmp_path / "full").mkdir()
    data = tmp_path / "data.npz"
    np.savez(data, inputs=np.zeros((2000, 4, 4, 1), np.float32), targets=np.zeros(2000, np.int32))
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "\x1b[31m.png").write_bytes(b"no image")
    zeros = np.zeros((2, 4, 4, 1), np.float32)
    np.savez(tmp_path / "texts.npz", inputs=zeros, targets=np.zeros(2), sample_ids=["a", "b"])
    unpacked = tmp_path / "busy" / "unfinished" / "data-0" / "inputs.npy"
    unpacked.parent.mkdir(parents=True)
    unpacked.write_text("of another job, which reads it")
    lock = RunLock(tmp_path / "busy")

    def train(*words: str, recipe: object = recipe, run: object = tmp_path / "bad") -> list[str]:
        return ["train", str(recipe), "--epochs", "1", "--output", str(run), *words]

    def explain(*words: str, data: object = data, run: object = tmp_path / "bad") -> list[str]:
        return [
            "explain",
            str(tmp_path / "one/models/epoch-000000.keras"),
            str(data),
            "--output",
            str(run),
            *words,
        ]

    cases = {
        "no such recipe": (
            train(recipe="digit_cnn"),
            "there is no model recipe 'digit_cnn' .did you mean 'digits_cnn'",
        ),
        "no such file": (train(recipe=tmp_path / "recpie.py"), "does not exist.*did you mean"),
        "recipe defines nothing": (
            train(recipe=empty),
            r"must define build\(\), load\(\); build\(\) is missing",
        ),
        "recipe with a syntax error": (
            train(recipe=broken),
            r"cannot be loaded.*broken\.py:1: SyntaxError",
        ),
        "no such option": (
            train("--set", "n_step=3"),
            "there is no option 'n_step' .did you mean 'n_steps'",
        ),
        "option of another type": (
            train("--set", "n_steps=few"),
            "'n_steps' expects a whole number; got 'few'",
        ),
        "no such callback": (
            train("--callback", "explain_everything"),
            "there is no callback recipe 'explain_everything'",
        ),
        "no such layer": (train("--set", "layer=cnov"), "cnov.*conv"),
        "layer without spatial output": (
            train("--set", "layer=dense"),
            r"layer 'dense'.*\(None, 3\).*conv",
        ),
        "zero steps": (train("--set", "n_steps=0"), "n_steps.*0"),
        "probe with nan": (
            train("--set", "nan=true"),
            "probe's inputs must be finite.*sample id 4",
        ),
        "empty probe": (train("--set", "n_probe=0"), "the probe has no examples"),
        "probe of another shape": (
            train("--set", "size=5"),
            r"takes inputs of shape \(None, 4, 4, 1\); got \(None, 5, 5, 1\)",
        ),
        "target out of range": (train("--set", "target=3"), "class ids 0 to 2.* 3 of sample 4"),
        "fewer training examples than ranks": (
            train("--set", "n_train=1"),
            "1 training examples cannot be shared by 2 ranks",
        ),
        "read-only place": (train(run=read_only / "run"), "(?i)read-only"),
        "full disk": (
            train("--set", "n_probe=4000", run=small_disk / "run"),
            "(?i)no space left|disk is full",
        ),
        "both resume and overwrite": (train("--resume", "--overwrite"), "not both"),
        "fewer probe examples than ranks": (train("--set", "n_probe=1", run=tmp_path / "one"), ""),
        "run exists": (
            train("--set", "n_probe=1", run=tmp_path / "one"),
            "holds a run already. Add --resume",
        ),
        "run exists, overwritten": (train("--overwrite", run=tmp_path / "one"), ""),
        "resumed with another probe": (
            train("--resume", "--epochs", "2", "--set", "n_probe=3", run=tmp_path / "one"),
            "another probe",
        ),
        "explain without a data set": (
            explain(data=tmp_path / "absent.npz"),
            "there is no data set .*absent.npz",
        ),
        "explain a pipe": (explain(data=tmp_path / "pipe.npz"), r"pipe\.npz' is a named pipe"),
        "explain a broken image": (
            explain(data=tmp_path / "images"),
            r"images/cat/\\x1b\[31m\.png' cannot be read",
        ),
        "explain examples whose ids are texts": (
            explain(data=tmp_path / "texts.npz"),
            "sample_ids must be whole numbers",
        ),
        "explain into a file": (explain(run=data), "A file stands where a folder is needed"),
        "explain into a read-only place": (
            explain(run=read_only / "run"),
            "mounted read-only: write to another place",
        ),
        "explain on a full disk": (
            explain(run=small_disk / "explained"),
            "The disk is full: free some space",
        ),
        "explain where another job does": (
            explain("--resume", run=tmp_path / "busy"),
            "another job is writing to",
        ),
    }
    commands = {name: ["hvd-xai", *words] for name, (words, _) in cases.items()}
    job = launch_commands("mpirun", 2, tmp_path, commands)
    assert job.ended.code == 0, job.ended.output[-5000:]
    wrong = [
        text
        for name, (_, message) in cases.items()
        for text in _problems(name, message, job.said[name])
    ]
    assert not wrong, "\n\n".join(wrong)
    assert unpacked.read_text() == "of another job, which reads it"
    lock.close()
    assert not (tmp_path / "bad" / "explanations" / "epochs" / "000000").exists()
    assert verify(tmp_path / "one", deep=True) == []


def test_without_horovod_the_line_to_build_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").write_text("raise ImportError('no horovod here')\n")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])
    words = [str(BIN / "hvd-xai"), "train", "digits_cnn", "--output", str(tmp_path / "run")]
    ended = run(words, env=env)
    assert ended.code == 1
    assert "Build it with: hvd-xai install-horovod" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()
