from pathlib import Path

import pytest

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.errors import CheckpointError, RunExistsError
from hvd_xai.sinks.checkpoint import Checkpoint
from hvd_xai.storage.staging import leftovers
from tests.checkpoint.small import make_attributions, make_rows, write


def test_explanation_is_copied_to_the_bit(tmp_path: Path) -> None:
    source = RunDirectory(tmp_path / "source")
    original = write(
        source.explanations_dir, make_rows(make_attributions(9, (4, 2))), epoch=2, world_size=3
    )
    sink = Checkpoint(tmp_path / "copy")
    sink(source, original)
    sink.close()
    sink.close()
    (copy,) = open_explanations(tmp_path / "copy")
    assert copy.manifest.files == original.manifest.files
    assert copy.manifest.header() == original.manifest.header()


def test_explanation_of_the_run_itself_is_left_alone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    explanation = write(run.open(), make_rows(make_attributions(4, ())))
    Checkpoint(tmp_path)(run, explanation)
    assert Explanation(explanation.path).manifest == explanation.manifest


def test_damaged_explanation_is_not_copied(tmp_path: Path) -> None:
    source = RunDirectory(tmp_path / "source")
    original = write(source.explanations_dir, make_rows(make_attributions(9, (4, 2))))
    Path(str(original.path), "score", "c", "0").unlink()
    sink = Checkpoint(tmp_path / "copy")
    with pytest.raises(CheckpointError, match="is missing"):
        sink(source, original)
    assert list(open_explanations(tmp_path / "copy")) == []
    assert leftovers(tmp_path / "copy" / "explanations" / "epochs") == []


def test_a_run_that_is_there_gets_copies_only_if_the_mode_says_so(tmp_path: Path) -> None:
    source = RunDirectory(tmp_path / "source")
    original = write(source.explanations_dir, make_rows(make_attributions(4, ())))
    RunDirectory(tmp_path / "copy").open()
    with pytest.raises(RunExistsError):
        Checkpoint(tmp_path / "copy")(source, original)
    Checkpoint(tmp_path / "copy", mode="resume")(source, original)
    assert open_explanations(tmp_path / "copy").epochs == [0]
