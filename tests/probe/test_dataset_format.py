"""Users' words about a data set format are read."""

import pytest

from hvd_xai.probe.dataset_format import Feature


@pytest.mark.parametrize(
    ("text", "name", "feature"),
    [
        ("inputs=x:float32:8,8,1", "inputs", Feature("x", "float32", (8, 8, 1))),
        ("targets=label/id:int64", "targets", Feature("label/id", "int64", ())),
        ("inputs=png:image:4,3,1", "inputs", Feature("png", "image", (4, 3, 1))),
    ],
)
def test_a_feature_is_read_from_its_text(text: str, name: str, feature: Feature) -> None:
    assert Feature.parse(text) == (name, feature)


@pytest.mark.parametrize("text", ["inputs", "vocabulary=x:int64", "inputs=x:float32:a"])
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a feature is written as"):
        Feature.parse(text)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'foo' .* must be 'image' or a NumPy dtype"):
        Feature.parse("inputs=x:foo:4")
