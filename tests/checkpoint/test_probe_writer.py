import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.checkpoint import json_record, probe_writer
from hvd_xai.checkpoint.json_record import seal
from hvd_xai.checkpoint.probe_reader import ProbeReader
from hvd_xai.checkpoint.probe_writer import probe_digest, write_probe
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.verify import verify
from hvd_xai.errors import CheckpointError
from hvd_xai.probe.probe import Probe
from tests.checkpoint.small import (
    read_plain,
)


def make_probe(**changes: Any) -> Probe:
    values = {
        "inputs": np.random.default_rng(0).normal(size=(7, 8, 8, 1)).astype(np.float32),
        "targets": np.arange(7),
        "sample_ids": np.arange(7) * 2,
        "class_names": ("zero", "one"),
    }
    return Probe(**{**values, **changes})


@pytest.mark.parametrize("dtype", ["<f4", "|u1", ">f4", "<i8"])
@pytest.mark.parametrize("block_bytes", [1, 1000, 2**24])
def test_probe_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, block_bytes: int
) -> None:
    monkeypatch.setattr(probe_writer, "_BLOCK_BYTES", block_bytes)
    probe = make_probe(
        inputs=np.arange(7 * 64).reshape(7, 8, 8, 1).astype(dtype), labels=np.arange(7) * 3
    )
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, probe)
    reader = open_explanations(tmp_path).probe()
    assert reader is not None
    assert (reader.n_samples, reader.input_shape, reader.class_names) == (
        7,
        (8, 8, 1),
        ("zero", "one"),
    )
    for rows in (
        slice(2, 5),
        slice(None),
        slice(0, 7, 3),
        slice(5, 2),
        [4, 0, 4],
        [],
        np.array([6]),
    ):
        np.testing.assert_array_equal(
            reader.inputs(rows),
            probe.inputs[np.asarray(rows, int) if not isinstance(rows, slice) else rows],
        )
    for name, values in (
        ("targets", probe.targets),
        ("labels", np.arange(7) * 3),
        ("sample_id", probe.sample_ids),
    ):
        np.testing.assert_array_equal(reader.column(name), values)
    with pytest.raises(IndexError, match="rows 0 to 6"):
        reader.inputs([7])
    np.testing.assert_array_equal(read_plain(explanations_dir / "probe" / "inputs"), probe.inputs)


def test_memory_mapped_probe_has_the_digest_of_its_copy(tmp_path: Path) -> None:
    probe = make_probe()
    np.save(tmp_path / "inputs.npy", probe.inputs)
    mapped = make_probe(inputs=np.load(tmp_path / "inputs.npy", mmap_mode="r"))
    assert probe_digest(mapped) == probe_digest(probe)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": np.zeros((7, 8, 8, 1), np.float32)},
        {"targets": np.arange(7)[::-1].copy()},
        {"targets": np.arange(7).astype(np.int32)},
        {"sample_ids": np.arange(7)},
        {"labels": np.zeros(7, np.int64)},
    ],
)
def test_every_part_of_a_probe_counts(change: dict[str, Any]) -> None:
    assert probe_digest(make_probe(**change)) != probe_digest(make_probe())


def test_probe_of_strings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inputs must be numbers; got strings"):
        write_probe(open_run(tmp_path, config={}), make_probe(inputs=np.array(list("abcdefg"))))


def test_damaged_probe_is_said(tmp_path: Path) -> None:
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, make_probe())
    (explanations_dir / "probe" / "targets" / "c" / "0").unlink()
    with pytest.raises(CheckpointError, match=r"is missing.*delete .*probe"):
        write_probe(explanations_dir, make_probe())
    reader = open_explanations(tmp_path).probe()
    assert reader is not None
    with pytest.raises(CheckpointError, match="is missing"):
        reader.column("targets")


TABLE = np.arange(21, dtype=np.float32).reshape(7, 3)
NAMES = ("age", "income", "debt")


def stored_names(run_dir: Path) -> tuple[str, ...]:
    reader = open_explanations(run_dir).probe()
    assert reader is not None
    return reader.feature_names


def test_feature_names_are_stored_and_do_not_count(tmp_path: Path) -> None:
    named, nameless = make_probe(inputs=TABLE, feature_names=NAMES), make_probe(inputs=TABLE)
    assert probe_digest(named) == probe_digest(nameless)
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, nameless)
    assert stored_names(tmp_path) == ()
    # a run that is resumed with names gets them, one that is resumed without keeps them
    for probe in (
        named,
        nameless,
    ):
        write_probe(explanations_dir, probe)
        assert stored_names(tmp_path) == NAMES
    assert verify(tmp_path, deep=True) == []


def test_the_vocabulary_is_stored_and_does_not_count(tmp_path: Path) -> None:
    tokens, words = np.arange(14).reshape(7, 2) % 4, ("", "[UNK]", "schön", "bad")
    wordless = make_probe(inputs=tokens)
    worded, named = (
        replace(wordless, vocabulary=words),
        replace(wordless, feature_names=("first", "second")),
    )
    assert probe_digest(worded) == probe_digest(wordless)
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, wordless)
    for probe, stored in (
        (worded, (words, ())),
        (wordless, (words, ())),
        (named, ((), named.feature_names)),
        (worded, (words, ())),
    ):
        write_probe(explanations_dir, probe)  # what was given last holds
        reader = open_explanations(tmp_path).probe()
        assert reader is not None
        assert (reader.vocabulary, reader.feature_names) == stored
    assert verify(tmp_path, deep=True) == []
    write_probe(open_run(tmp_path / "new", config={}), worded)
    reader = open_explanations(tmp_path / "new").probe()
    assert reader is not None
    assert reader.vocabulary == words


def test_names_that_inputs_give_are_not_stored_but_read(tmp_path: Path) -> None:
    probe = Probe.of_several({"age": TABLE[:, 0], "history": TABLE[:, 1:]}, np.arange(7))
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, probe)
    assert stored_names(tmp_path) == probe.feature_names == ("age", "history[0]", "history[1]")
    assert "history[0]" not in (explanations_dir / "probe" / "manifest.json").read_text()
    for again in (replace(probe, feature_names=NAMES), probe):
        write_probe(explanations_dir, again)
        assert stored_names(tmp_path) == NAMES


PACKED = {"names": ["age"], "shapes": [[3]], "dtypes": ["float32"], "keyed": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"feature_names": ["age", "income"]},
            r"a name of its own for each value of inputs of shape \(3,\); got 2",
        ),
        ({"feature_names": ["age", "income", "age"]}, "a name of its own for each value"),
        ({"feature_names": ["age", "income", 3]}, "a list of strings under 'feature_names'"),
        ({"vocabulary": "age"}, "a list of strings under 'vocabulary'"),
        (
            {"vocabulary": ["", "a"], "input_shape": [3, 1]},
            r"a vocabulary, which is of token ids \[T\]; got inputs of shape \(3, 1\)",
        ),
        ({"packing": {**PACKED, "names": []}}, "a name, a dtype and a shape for each input"),
        ({"packing": {**PACKED, "shapes": [[-3]]}}, "a name, a dtype and a shape for each input"),
        (
            {"packing": {**PACKED, "shapes": [[10**12]]}},
            "inputs of 1000000000000 packed values; got shape",
        ),
    ],
)
def test_names_that_do_not_fit_the_inputs_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    explanations_dir = open_run(tmp_path, config={})
    write_probe(explanations_dir, make_probe(inputs=TABLE))
    path = explanations_dir / "probe" / "manifest.json"
    record = json.loads(path.read_text())
    record.pop("digest")
    path.write_bytes(seal({**record, **change}))
    with pytest.raises(CheckpointError, match=said):
        open_explanations(tmp_path).probe()


def test_more_names_than_are_read_are_refused_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explanations_dir = open_run(tmp_path, config={})
    monkeypatch.setattr(json_record, "MAX_BYTES", 2500)
    with pytest.raises(
        ValueError, match=r"a record has 2500 bytes at most; .* most of them for 'feature_names'"
    ):
        write_probe(
            explanations_dir, make_probe(inputs=TABLE, feature_names=("a", "b", "c" * 2000))
        )
    write_probe(explanations_dir, make_probe(inputs=TABLE))
    with pytest.raises(ValueError, match="most of them for 'feature_names'"):
        write_probe(
            explanations_dir, make_probe(inputs=TABLE, feature_names=("a", "b", "c" * 2000))
        )
    assert stored_names(tmp_path) == ()


def reopen(tmp_path: Path, probe: Probe) -> ProbeReader:
    write_probe(
        open_run(
            tmp_path,
            config={},
            mode="resume" if tmp_path.joinpath("explanations").exists() else "new",
        ),
        probe,
    )
    reader = open_explanations(tmp_path).probe()
    assert reader is not None
    return reader


def test_the_window_is_that_of_the_whole_probe_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = np.random.default_rng(0).normal(size=(7, 8, 8, 1)).astype(np.float32)
    monkeypatch.setattr(probe_writer, "_BLOCK_BYTES", 1)
    low = float(np.percentile(inputs, 0.5, method="lower"))
    high = float(np.percentile(inputs, 99.5, method="higher"))
    assert reopen(tmp_path, make_probe(inputs=inputs)).facts.window == (low, high)


def test_a_resumed_run_may_say_window_and_kind_and_keeps_its_names(tmp_path: Path) -> None:
    first = reopen(tmp_path, make_probe())
    assert first.facts.window is not None
    said = reopen(tmp_path, make_probe(window=(-160, 240), kind="image"))
    assert (said.facts.window, said.facts.kind) == ((-160.0, 240.0), "image")
    # what is not said again stays
    assert reopen(tmp_path, make_probe()).facts.window == (-160.0, 240.0)
    assert said.class_names == ("zero", "one")


def test_a_window_leaves_the_names_of_features(tmp_path: Path) -> None:
    table = {"inputs": np.ones((7, 2)), "feature_names": ("a", "b")}
    assert reopen(tmp_path, make_probe(**table)).facts.window is None
    said = reopen(tmp_path, make_probe(**{**table, "feature_names": ()}, window=(0, 2)))
    assert (said.facts.window, said.feature_names) == ((0.0, 2.0), ("a", "b"))
