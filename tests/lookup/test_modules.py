from pathlib import Path

import pytest

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.recipes import load_recipe

RECIPE = """
from dataclasses import dataclass
from beside_it import WIDTH

@dataclass
class Options:
    width: int = WIDTH

def build(*, width: int = 8):
    return Options(width)

def load(*, seed=0):
    return seed
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write(tmp_path / "beside_it.py", "WIDTH = 8\n")
    return write(tmp_path / "mine.py", RECIPE)


def test_a_file_is_loaded_with_what_lies_beside_it(recipe: Path) -> None:
    loaded = load_recipe(str(recipe), "models", ["build", "load"])
    assert (loaded.name, loaded.source) == ("mine", str(recipe))
    assert loaded.functions["build"](width=3).width == 3


def test_a_file_runs_once_a_process(recipe: Path) -> None:
    first, second = (load_recipe(str(recipe), "models", ["build"]) for _ in range(2))
    assert first.functions["build"] is second.functions["build"]


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "same.py", f"def build(): return {number}\n")
    found = [
        load_recipe(str(tmp_path / str(number) / "same.py"), "models", ["build"]).functions[
            "build"
        ]()
        for number in (1, 2)
    ]
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must define build(), load(); build() is missing. It defines no function."),
        (
            "def biuld(): pass\ndef load(): pass\n",
            "build() is missing (did you mean 'biuld'?). It defines biuld, load.",
        ),
        ("build = 5\n", "build() is no function there"),
        ("x = 1\ndef build(:\n", "bad.py:2: SyntaxError"),
        ("x = 1\n\nraise KeyError('gone')\n", "bad.py:3: KeyError: 'gone'"),
        (
            "import nowhere_to_be_found\n",
            "bad.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'. Install",
        ),
        ("import sys\nsys.exit(3)\n", "bad.py:2: SystemExit: 3"),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.py", text)
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path), "models", ["build", "load"])
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_failed_is_run_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "mended.py", "raise ValueError\n")
    with pytest.raises(RecipeError):
        load_recipe(str(path), "models", ["build"])
    write(path, "def build(): return 1  # longer\n")
    assert load_recipe(str(path), "models", ["build"]).functions["build"]() == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nowhere/no.py", "does not exist"),
        ("no_such_package:name", "No module named 'no_such_package'"),
        ("hvd_xai.lookup.recipes:load_recip", "did you mean 'load_recipe'?"),
        ("not a module:name", "not of the form package.module:name"),
    ],
)
def test_a_spec_that_leads_nowhere_is_an_error(spec: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(spec, "models", ["build"])
    assert said in str(error.value)


def test_a_path_that_is_nearly_right_is_named(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"does not exist \(did you mean '.*mine\.py'\?\)"):
        load_recipe(str(recipe.with_name("mein.py")), "models", ["build"])


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(f"{tmp_path}/", "models", ["build"])
