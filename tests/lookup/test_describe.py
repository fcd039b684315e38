"""A function is recorded by name, options, and the files it is made of."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvd_xai.lookup.describe import describe, digest_sources
from hvd_xai.lookup.methods import load_method
from hvd_xai.provenance import digest


def method(
    model: object,
    inputs: object,
    /,
    *,
    ids: object,
    n_steps: int = 50,
    score: object = "output",
    baseline: object = None,
) -> None: ...


def smooth(model: object, /, *, ids: object, method: object, width: float = 0.5) -> None: ...


def test_bound_options_and_defaults_are_told() -> None:
    assert describe(method) == ("method", {"n_steps": 50, "score": "output", "baseline": None})
    assert describe(partial(method, n_steps=8))[1]["n_steps"] == 8


def test_the_outer_partial_wins() -> None:
    assert describe(partial(partial(method, n_steps=8), n_steps=9, score="loss"))[1] == {
        "n_steps": 9,
        "score": "loss",
        "baseline": None,
    }


def test_functions_stand_under_their_names() -> None:
    assert describe(partial(method, score=digest))[1]["score"] == "digest"
    name, options = describe(partial(smooth, method=partial(method, n_steps=8)))
    assert name == "smooth"
    assert options == {
        "method": {"method": {"n_steps": 8, "score": "output", "baseline": None}},
        "width": 0.5,
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.float32(0.5), 0.5),
        (float("nan"), "nan"),
        ((1, 2), [1, 2]),
        ({"a": np.int64(1)}, {"a": 1}),
        (Path("a"), "a"),
        (
            np.zeros(2, "f4"),
            {"shape": [2], "dtype": "float32", "digest": digest(np.zeros(2, "f4"))},
        ),
    ],
)
def test_values_become_json(value: object, told: object) -> None:
    assert describe(partial(method, baseline=value))[1]["baseline"] == told


def test_what_has_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="a lambda has no name"):
        describe(partial(method, score=lambda: 0))
    with pytest.raises(ValueError, match="bound by keyword"):
        describe(partial(method, 1))


def test_methods_of_others_are_told_by_what_is_in_their_files(tmp_path: Path) -> None:
    def told(content: str) -> dict[str, str]:
        (tmp_path / "mine.py").write_text(content)
        return digest_sources(
            partial(method, baseline=load_method(str(tmp_path / "mine.py")), score="output")
        )

    first, second = (
        told("def mine(inputs): return inputs"),
        told("def mine(inputs): return 2 * inputs"),
    )
    assert sorted(first) == ["mine.py", "test_describe.py"]
    assert first["test_describe.py"] == second["test_describe.py"]
    assert first["mine.py"] != second["mine.py"]
    assert digest_sources(partial(load_method("smoothgrad"), method=load_method("saliency"))) == {}
    assert digest_sources(len) == {}
