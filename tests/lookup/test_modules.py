import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from hvd_xai.errors import RecipeError
from hvd_xai.lookup import recipes
from hvd_xai.lookup.methods import load_method, load_methods, methods
from hvd_xai.lookup.recipes import load_recipe, shipped
from hvd_xai.lookup.settings import parse_settings

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


def test_every_method_is_found_by_its_name() -> None:
    assert "integrated_gradients" in methods()


def test_a_method_of_ones_own_is_a_function_named_as_its_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine_too.py", "def mine_too(model, inputs, targets, /, *, ids): return inputs\n"
    )
    assert load_method(str(path)).__name__ == "mine_too"
    with pytest.raises(RecipeError, match=r"did you mean 'integrated_gradients'.*There are: "):
        load_method("integrated_gradient")


def test_methods_are_called_what_is_written_before_them_or_by_their_own_names(
    tmp_path: Path,
) -> None:
    (tmp_path / "a=b").mkdir()
    path = write(
        tmp_path / "a=b" / "mine.py", "def mine(model, inputs, targets, /, *, ids): return inputs\n"
    )
    found = load_methods(["saliency", "steep=saliency", str(path), f"yours={path}"])
    expected = {"saliency": "saliency", "steep": "saliency", "mine": "mine", "yours": "mine"}
    assert {name: function.__name__ for name, function in found.items()} == expected
    with pytest.raises(
        RecipeError,
        match="two methods 'saliency'; give each a name of its own, as in --method one=saliency",
    ):
        load_methods(["saliency", "saliency"])
    with pytest.raises(
        RecipeError,
        match="two methods 'a'; give each a name of its own, as in --method one=grad_cam",
    ):
        load_methods(["a=saliency", "a=grad_cam"])


def build(
    *,
    width: int = 8,
    rate: float = 0.1,
    name: str = "a",
    deep: bool = False,
    at: tuple[int, ...] = (1,),
) -> None: ...


def load(  # type: ignore[no-untyped-def]  # a default says the type of what has no annotation
    *,
    seed: int | None = None,
    pair: tuple[int, str] = (1, "a"),
    rule: Literal["midpoint", "left"] = "midpoint",
    untyped=(0.5,),
    where: Path = Path(),
    bare: tuple = (),  # type: ignore[type-arg]  # as people write it
    shape: dict[str, int] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width=16", 16),
        (" width = 16 ", 16),
        ("rate=1e-3", 1e-3),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("deep=yes", True),
        ("deep=False", False),
        ("at=1,2", (1, 2)),
        ("at=(1,)", (1,)),
        ("at=", ()),
        ("build.width=4", 4),
        ("seed=7", 7),
        ("seed=None", None),
        ("pair=3,b", (3, "b")),
        ("rule=left", "left"),
        ("untyped=1,2", (1.0, 2.0)),
        ("where=a/b", Path("a/b")),
        ("bare=1,x", (1, "x")),
        ("shape=none", None),
    ],
)
def test_a_setting_is_read_by_the_parameters_type(setting: str, value: object) -> None:
    parsed = parse_settings([setting], {"build": build, "load": load})
    [found] = [options for options in parsed.values() if options]
    assert list(found.values()) == [value]
    assert type(next(iter(found.values()))) is type(value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["widht=1"],
            (
                "there is no option 'widht' (did you mean 'width'?). What can be set: width=8"
                " (build), rate=0.1 (build)"
            ),
        ),
        (["width"], "not of the form name=value"),
        (["=3"], "not of the form name=value"),
        (["width=x"], "'width' expects a whole number; got 'x'"),
        (["width=1.5"], "a whole number"),
        (["rate=fast"], "a number"),
        (["deep=maybe"], "true or false"),
        (["at=1,x"], "values with commas between them, each a whole number"),
        (["pair=1"], "2 values with commas"),
        (["rule=right"], "one of midpoint, left"),
        (["seed=x"], "a whole number or none"),
        (["shape=a"], "cannot be written on the command line"),
        (["width=1", "build.width=2"], "'width' is set twice"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_is_right(
    settings: list[str], said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        parse_settings(settings, {"build": build, "load": load})
    assert said in str(error.value)


def test_the_ids_that_a_method_is_called_with_are_no_option() -> None:
    def method(*, ids: object, n_steps: int = 5) -> None:
        del ids, n_steps

    with pytest.raises(
        RecipeError, match=r"there is no option 'ids'\. What can be set: n_steps=5 \(method\)\."
    ):
        parse_settings(["ids=1"], {"method": method})


def test_an_option_of_two_functions_must_be_said_in_full() -> None:
    functions = {"one.build": build, "two.build": build}
    with pytest.raises(RecipeError, match=r"write one\.build\.width=3 or two\.build\.width=3"):
        parse_settings(["width=3"], functions)
    assert parse_settings(["two.build.width=3"], functions) == {
        "one.build": {},
        "two.build": {"width": 3},
    }


def test_the_options_of_a_partial_are_known() -> None:
    assert parse_settings(["width=3"], {"build": partial(build, rate=0.5)}) == {
        "build": {"width": 3}
    }


def test_the_librarys_names_cost_nothing_until_used() -> None:
    program = (
        "import sys, hvd_xai; assert 'Probe' in dir(hvd_xai)\nheavy = {'numpy', 'tensorflow',"
        " 'keras', 'mpi4py', 'horovod', 'zarr'} & set(sys.modules); assert not heavy,"
        " heavy\nhvd_xai.Probe, hvd_xai.open_explanations\nheavy = {'tensorflow', 'keras',"
        " 'mpi4py', 'horovod'} & set(sys.modules); assert not heavy, heavy\ntry:\n   "
        " hvd_xai.Prob\nexcept AttributeError as error:\n    assert 'Probe' in str(error)\nelse:\n "
        "   raise AssertionError\n"
    )
    root = Path(recipes.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def test_every_public_name_exists() -> None:
    import hvd_xai

    assert [name for name in hvd_xai._PUBLIC if getattr(hvd_xai, name) is None] == []
