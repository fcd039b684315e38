from pathlib import Path

from hvd_xai.checkpoint.layout import EXPLANATIONS, LOCK, RUN
from hvd_xai.checkpoint.run_directory import RunDirectory


def test_names_on_disk_stay_what_they_are(tmp_path: Path) -> None:
    RunDirectory(tmp_path).open()
    assert (EXPLANATIONS, RUN, LOCK) == ("explanations", "run.json", ".lock")
    assert {path.name for path in tmp_path.iterdir()} == {EXPLANATIONS, LOCK}
    assert (tmp_path / EXPLANATIONS / RUN).is_file()
