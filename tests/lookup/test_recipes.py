from pathlib import Path

import pytest

from hvd_xai.errors import RecipeError
from hvd_xai.lookup import recipes
from hvd_xai.lookup.recipes import load_recipe, shipped


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_shipped_recipe_is_loaded_by_name_as_by_path() -> None:
    for folder in ("models", "callbacks"):
        for name, path in shipped(folder).items():
            assert path.stem == name
            assert path.is_file()


def test_an_import_is_an_object_with_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path / "their_package.py",
        "class cnn:\n    @staticmethod\n    def build(): return 5\n\ndef alone(run): return"
        " [run]\n",
    )
    monkeypatch.chdir(tmp_path)
    assert load_recipe("their_package:cnn", "models", ["build"]).functions["build"]() == 5
    alone = load_recipe("their_package:alone", "callbacks", ["build"])
    assert (alone.name, alone.functions["build"](1)) == ("alone", [1])


@pytest.mark.parametrize("name", ["digits_cmm", "no_such"])
def test_a_wrong_name_is_answered_with_those_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_recipes/models").mkdir(parents=True)
    write(tmp_path / "_recipes/models/digits_cnn.py", "")
    write(tmp_path / "_recipes/models/resnet.py", "")
    monkeypatch.setattr(recipes, "PACKAGE", tmp_path)
    with pytest.raises(RecipeError, match=r"There are: digits_cnn, resnet\.") as error:
        load_recipe(name, "models", ["build"])
    assert ("did you mean 'digits_cnn'" in str(error.value)) == (name == "digits_cmm")
