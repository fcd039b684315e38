"""A method is restored from its record, or the error says what cannot be restored."""

import pytest

from hvd_xai.errors import CheckpointError
from hvd_xai.lookup.restore import restore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"baseline": {"shape": [8, 8, 1], "dtype": "float32", "digest": "0" * 32}},
            "was an array, of which a digest is recorded",
        ),
        (
            {"score": {"my_score": {"width": 3}}},
            "was the function .*my_score.*, recorded by its name alone",
        ),
    ],
)
def test_options_that_cannot_be_had_again_are_named(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        restore("integrated_gradients", options)  # type: ignore[arg-type]  # JSON


def test_a_method_of_ones_own_must_be_given() -> None:
    def _own() -> None: ...

    with pytest.raises(CheckpointError, match="'my_method' is no method of hvd_xai; give the file"):
        restore("my_method", {})
    assert restore("my_method", {"width": [1, 2]}, _own).keywords == {"width": (1, 2)}  # type: ignore[attr-defined]  # a partial


def test_a_method_within_a_method_is_bound_again() -> None:
    outer = restore("grad_cam", {"method": {"integrated_gradients": {"n_steps": 3}}})
    assert outer.keywords["method"].keywords == {"n_steps": 3}  # type: ignore[attr-defined]  # as above
