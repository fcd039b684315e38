from pathlib import Path

import pytest
from typer.testing import CliRunner

from hvd_xai.cli.main import build
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.recipes import Folder, shipped

FOLDERS: tuple[Folder, ...] = ("models", "callbacks")
RECIPES = {name: path for folder in FOLDERS for name, path in shipped(folder).items()}


def copy(*words: str) -> str:
    done = CliRunner().invoke(build(), ["copy", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_copied_as_it_is(name: str, tmp_path: Path) -> None:
    assert "hvd-xai train" in copy(name, str(tmp_path))
    assert (tmp_path / f"{name}.py").read_bytes() == RECIPES[name].read_bytes()
    copy(name, str(tmp_path / "mine.py"))
    assert (tmp_path / "mine.py").read_bytes() == RECIPES[name].read_bytes()


def test_the_current_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy("digits_cnn")
    assert (tmp_path / "digits_cnn.py").is_file()


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "digits_cnn.py").write_text("mine")
    with pytest.raises(RecipeError, match=r"exists.*--force"):
        copy("digits_cnn", str(tmp_path))
    assert (tmp_path / "digits_cnn.py").read_text() == "mine"
    copy("digits_cnn", str(tmp_path), "--force")
    assert (tmp_path / "digits_cnn.py").read_text() != "mine"


def test_the_shipped_recipe_is_never_the_target() -> None:
    source = RECIPES["digits_cnn"]
    before = source.read_bytes()
    with pytest.raises(RecipeError, match="the shipped recipe itself"):
        copy("digits_cnn", str(source), "--force")
    assert source.read_bytes() == before


def test_wrong_names_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'digits_cnn'.*digits_cnn \(models\)"):
        copy("digit_cnn")
    with pytest.raises(RecipeError, match="does not exist"):
        copy("digits_cnn", str(tmp_path / "no/such/folder.py"))
