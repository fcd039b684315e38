from pathlib import Path

import pytest

from hvd_xai.errors import RecipeError
from hvd_xai.lookup.methods import load_method, load_methods, shipped_methods


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_every_method_is_found_by_its_name() -> None:
    assert "integrated_gradients" in shipped_methods()


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
