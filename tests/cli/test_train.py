"""What the command prints and refuses on one rank; tests/launched trains with it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hvd_xai.cli.main import build
from hvd_xai.errors import RecipeError


def test_both_flags_are_wrong_usage() -> None:
    done = CliRunner().invoke(build(), ["train", "digits_cnn", "--resume", "--overwrite"])
    assert done.exit_code == 2
    assert "not both" in done.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["digit_cnn"], "did you mean 'digits_cnn'"),
        (["digits_cnn", "--set", "filter=4"], "filters"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_the_right_one(
    words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(build(), ["train", *words])
    assert isinstance(done.exception, RecipeError)
    assert complaint in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_it_will_take_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "breast_cancer", "--method", "saliency", "--dry-run"]
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.split("\n") if line.strip()][-1] == "saliency"
    assert not list(tmp_path.iterdir())
