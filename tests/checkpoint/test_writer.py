import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.manifest import Manifest
from hvd_xai.checkpoint.rows import decode
from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.checkpoint.writer import Writer, sweep
from hvd_xai.checkpoint.written_shards import Written, write_shards
from hvd_xai.errors import CheckpointError
from hvd_xai.storage import arrays, durable
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import (
    SHAPES,
    begin,
    files_under,
    make_attributions,
    make_header,
    make_rows,
    read_plain,
    write,
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_samples", [1, 11])
def test_committed_files_are_those_of_the_manifest(
    tmp_path: Path, shape: tuple[int, ...], n_samples: int
) -> None:
    rows = make_rows(make_attributions(n_samples, shape))
    explanation = write(tmp_path, rows)
    assert files_under(tmp_path / "epochs/000000/integrated_gradients") == {
        "manifest.json",
        *(file.key for file in explanation.manifest.files),
    }
    assert explanation.path == tmp_path / "epochs" / "000000" / "integrated_gradients"
    assert leftovers(tmp_path / "epochs") == []
    for name in rows.dtype.names or ():
        np.testing.assert_array_equal(
            read_plain(tmp_path / "epochs/000000/integrated_gradients" / name), rows[name]
        )


@pytest.mark.parametrize("n_samples", [1, 15, 16, 17, 48])
def test_bytes_depend_on_rows_alone_not_on_blocks_or_world_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_samples: int
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 64)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 256)
    rows = make_rows(make_attributions(n_samples, (3, 2)))
    expected = write(tmp_path / "whole", rows).manifest
    assert n_samples < 16 or any(file.key == "sample_id/c/1" for file in expected.files) == (
        n_samples > 32
    )
    generator = np.random.default_rng(n_samples)
    for trial in range(4):
        writer = begin(tmp_path / str(trial), rows, world_size=trial + 1)
        stop = 0
        while stop < n_samples:
            start, stop = stop, min(n_samples, stop + int(generator.integers(0, 20)))
            writer.append(rows[start:stop])
        assert Explanation(writer.commit()).manifest.files == expected.files


@pytest.mark.parametrize(
    "spoil", [lambda parts: parts[:1], lambda parts: [*parts, parts[0]], lambda parts: parts]
)
def test_zarr_shards_written_elsewhere_are_committed_when_all_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[list[Written]], list[Written]]
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 64)
    monkeypatch.setattr(arrays, "SHARD_BYTES", 256)
    attributions = make_attributions(40, (3, 2))
    attributions[5, 0, 0], attributions[35, 0, 0] = np.nan, np.inf
    rows = make_rows(attributions)
    writer = Writer(tmp_path, make_header(40, (3, 2)), rows.dtype, elsewhere=["attributions"])
    writer.append(
        rows[[name for name in rows.dtype.names or () if name != "attributions"]].astype(
            writer.appended
        )
    )
    parts = [
        write_shards(
            writer.staged,
            "attributions",
            (40, 3, 2),
            first,
            [rows["attributions"][first : first + n]],
        )
        for first, n in ((0, 32), (32, 8))
    ]
    whole = spoil(parts) == parts
    with (
        nullcontext()
        if whole
        else pytest.raises(
            CheckpointError, match=r"must have the Zarr shard 'attributions/c/\d/0/0' 1 times"
        )
    ):
        assert (
            Explanation(writer.commit(written=spoil(parts))).manifest.files
            == write(tmp_path / "whole", rows).manifest.files
        )
    if whole:
        manifest = Explanation(writer.destination).manifest
        assert (manifest.nonfinite, manifest.negative) == (2, (attributions < 0).sum())


def test_manifest_says_what_the_rows_held(tmp_path: Path) -> None:
    attributions = make_attributions(20, (4, 4))
    attributions[3, 1, 1], attributions[9, 0, 0], attributions[9, 0, 1] = np.nan, np.inf, -np.inf
    explanation = write(tmp_path, make_rows(attributions), epoch=7, world_size=3)
    manifest = explanation.manifest
    assert (manifest.epoch, manifest.step, manifest.nonfinite, manifest.world_size) == (7, 70, 3, 3)
    assert manifest.negative == (attributions < 0).sum()
    assert manifest.options == {"n_steps": 50, "window": [1, 2.5], "baseline": None}
    assert [(rows.host, rows.start, rows.stop) for rows in manifest.ranks] == [
        ("host0", 0, 6),
        ("host1", 6, 13),
        ("host2", 13, 20),
    ]
    np.testing.assert_array_equal(explanation.attributions(), decode(make_rows(attributions)))


def test_order_digest_tells_probes_apart(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(5, ()))
    other = rows.copy()
    other["sample_id"] += 1
    digests = [
        write(tmp_path / str(index), which).manifest.sample_order_digest
        for index, which in enumerate((rows, rows, other))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_empty_blocks_change_nothing(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(3, (2,)))
    writer = begin(tmp_path, rows)
    for block in (rows[:0], rows[:2], rows[:0], rows[2:], rows[:0]):
        writer.append(block)
    assert Explanation(writer.commit()).n_samples == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[::-1], "order of sample id"),
        (lambda rows: rows[[0, 1, 1]], "order of sample id"),
        (lambda rows: np.concatenate([rows, rows[-1:]]), "must have 5 rows; got 6"),
        (lambda rows: rows[["scale"]], "records of the dtype"),
        (lambda rows: rows.reshape(5, 1), "records of the dtype"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_of_them_is_kept(
    tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    rows = make_rows(make_attributions(5, (2,)))
    writer = begin(tmp_path, rows)
    with pytest.raises(ValueError, match=message):
        writer.append(spoil(rows))
    writer.append(rows)
    assert Explanation(writer.commit()).rows().tobytes() == rows.tobytes()


def test_blocks_out_of_order_are_refused(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    writer = begin(tmp_path, rows)
    writer.append(rows[2:3])
    with pytest.raises(ValueError, match="order of sample id"):
        writer.append(rows[:2])


def test_missing_rows_are_no_checkpoint(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    writer = begin(tmp_path, rows)
    writer.append(rows[:3])
    with pytest.raises(CheckpointError, match="must have 4 rows to be committed; got 3"):
        writer.commit()
    writer.discard()
    assert not writer.destination.exists()
    assert list((tmp_path / "epochs").iterdir()) == []


def test_rows_of_another_shape_than_the_header_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the header says"):
        Writer(tmp_path, make_header(4, (3,)), make_rows(make_attributions(4, (2,))).dtype)


def test_a_writer_is_used_once(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    writer = begin(tmp_path, rows)
    writer.append(rows)
    path = writer.commit()
    for again in (lambda: writer.append(rows), writer.commit):
        with pytest.raises(CheckpointError, match="was committed; make a new Writer"):
            again()
    writer.discard()
    writer.discard()
    assert Explanation(path).n_samples == 4


def test_committing_the_same_again_is_a_success(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    first = write(tmp_path, rows)
    second = write(tmp_path, rows, world_size=2)
    assert second.manifest == first.manifest
    assert leftovers(tmp_path / "epochs") == []


def test_committing_over_another_explanation_is_refused(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    first = write(tmp_path, rows)
    with pytest.raises(
        CheckpointError, match=r"committed before by another writer and differs in weights_digest"
    ):
        write(tmp_path, rows, weights_digest="w1")
    with pytest.raises(CheckpointError, match="differs in function"):
        write(tmp_path, rows, function="occlusion")
    assert Explanation(first.path).manifest == first.manifest
    assert leftovers(tmp_path / "epochs") == []


@pytest.mark.parametrize("renameat2", [True, False])
def test_replace_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renameat2: bool
) -> None:
    if not renameat2:
        monkeypatch.setattr(durable, "_renameat2", lambda *_: False)
    rows = make_rows(make_attributions(4, ()))
    write(tmp_path, rows)
    writer = begin(tmp_path, rows, weights_digest="w1")
    writer.append(rows)
    assert Explanation(writer.commit(replace=True)).manifest.weights_digest == "w1"
    assert files_under(tmp_path) == {
        "epochs/000000/zarr.json",
        *(f"epochs/000000/integrated_gradients/{name}" for name in files_under(writer.destination)),
    }


def test_damaged_checkpoint_is_no_success(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    write(tmp_path, rows)
    (tmp_path / "epochs/000000/integrated_gradients/score/c/0").unlink()
    with pytest.raises(CheckpointError, match=r"exists but is damaged.*replace=True"):
        write(tmp_path, rows)


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    one, other = begin(tmp_path, rows), begin(tmp_path, rows, weights_digest="w1")
    one.append(rows)
    other.append(rows[:2])
    assert sweep(tmp_path) == []
    one.commit()
    other.append(rows[2:])
    with pytest.raises(CheckpointError, match="another writer"):
        other.commit()
    assert Explanation(one.destination).manifest.weights_digest == "w0"


def test_methods_of_one_epoch_stand_side_by_side(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    for method in ("grad_cam", "integrated_gradients"):
        write(tmp_path, rows, method=method)
    assert sorted(path.name for path in (tmp_path / "epochs" / "000000").iterdir()) == [
        "grad_cam",
        "integrated_gradients",
        "zarr.json",
    ]
    assert json.loads((tmp_path / "epochs" / "000000" / "zarr.json").read_text())["attributes"] == {
        "epoch": 0
    }


def test_failed_append_cannot_be_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1)
    monkeypatch.setattr(arrays, "SHARD_ROWS", 2)
    rows = make_rows(make_attributions(4, ()))
    writer = begin(tmp_path, rows)
    (leftovers(tmp_path / "epochs")[0] / "score" / "c").write_text(
        "stands where a folder must be made"
    )
    with pytest.raises(CheckpointError, match="cannot write"):
        writer.append(rows)
    for again in (lambda: writer.append(rows), writer.commit):
        with pytest.raises(CheckpointError, match="failed or was discarded"):
            again()
    writer.discard()
    assert list((tmp_path / "epochs").iterdir()) == []


def test_manifest_of_a_copy_differs_in_time_alone(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, (2, 2)))
    manifests: list[Manifest] = [write(tmp_path / name, rows).manifest for name in "ab"]
    assert replace(manifests[0], created="") == replace(manifests[1], created="")


def rename_run(writer: Writer) -> None:
    run_dir = writer.destination.parents[3]
    run_dir.rename(run_dir.with_name("moved"))


def remove_shard(writer: Writer) -> None:
    (writer.staged / "score" / "c" / "0").unlink(missing_ok=True)


TAKEN_AWAY: dict[str, Callable[[Writer], object]] = {
    "staging folder": lambda writer: shutil.rmtree(writer.staged),
    "run renamed": rename_run,
    "one array": lambda writer: shutil.rmtree(writer.staged / "score"),
    "metadata of an array": lambda writer: (writer.staged / "scale" / "zarr.json").unlink(),
    "Zarr shard that is being written": lambda writer: (
        remove_shard(writer)
        if (writer.staged / "score" / "c" / "0").exists()
        else rename_run(writer)
    ),
}


@pytest.mark.parametrize("rows_before", [0, 3, 20])
@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_a_checkpoint_that_lost_staged_files_is_never_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, rows_before: int
) -> None:
    # Chunks of 2 numbers and Zarr shards of 16 rows: after 3 rows the first shard is begun, after
    # 20 it is closed and the second begun.
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 8)
    monkeypatch.setattr(arrays, "SHARD_ROWS", 16)
    rows = make_rows(make_attributions(40, (3, 2)))
    explanations_dir = open_run(tmp_path / "run", config={})
    writer = begin(explanations_dir, rows)
    writer.append(rows[:rows_before])
    TAKEN_AWAY[what](writer)

    def go_on() -> None:
        writer.append(rows[rows_before:])
        writer.commit()

    with pytest.raises(CheckpointError, match=r"cannot (write|commit)"):
        go_on()
    assert list(tmp_path.rglob("manifest.json")) == []
    assert not (tmp_path / "moved").exists() or not (tmp_path / "run").exists()


def test_a_run_that_was_moved_away_is_not_begun_anew(tmp_path: Path) -> None:
    rows = make_rows(make_attributions(4, ()))
    with pytest.raises(CheckpointError, match="The folder is gone"):
        Writer(tmp_path / "run" / "explanations", make_header(4, ()), rows.dtype)
    assert list(tmp_path.iterdir()) == []
