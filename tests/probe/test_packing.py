from typing import Any

import numpy as np
import pytest

from hvd_xai import Probe
from hvd_xai.probe.packing import pack

IMAGE = np.arange(2 * 3 * 3 * 1, dtype=np.float64).reshape(2, 3, 3, 1)
TOKENS = np.array([[3, 1], [0, 7]], np.int32)
SCALAR = np.array([0.5, -0.5], np.float32)


def test_inputs_are_taken_apart_as_they_were() -> None:
    rows, packing = pack({"image": IMAGE, "tokens": TOKENS, "scalar": SCALAR})
    assert rows.shape == (2, 9 + 2 + 1) == (2, packing.n_features)
    assert rows.dtype == np.float32
    apart = packing.taken_apart(rows)
    for name, values in (("image", IMAGE), ("tokens", TOKENS), ("scalar", SCALAR)):
        np.testing.assert_array_equal(apart[name], values)
    assert packing.keyed
    assert packing.is_whole().tolist() == [False] * 9 + [True] * 2 + [False]


def test_values_of_a_row_are_named_by_their_inputs() -> None:
    inputs = {"age": SCALAR, "income": SCALAR[:, None], "history": TOKENS}
    targets = np.array([0, 1])
    assert Probe.of_several(inputs, targets).feature_names == (
        "age",
        "income",
        "history[0]",
        "history[1]",
    )
    assert Probe.of_several([SCALAR, TOKENS], targets).feature_names == (
        "input 0",
        "input 1[0]",
        "input 1[1]",
    )
    assert Probe.of_several({"age": SCALAR, "photo": IMAGE}, targets).feature_names == ()
    assert Probe.of_several(inputs, targets, feature_names=("a", "b", "c", "d")).feature_names == (
        "a",
        "b",
        "c",
        "d",
    )


def test_a_list_is_numbered() -> None:
    _, packing = pack([SCALAR, TOKENS])
    assert packing.names == ("0", "1")
    assert not packing.keyed
    assert packing.columns("1") == slice(1, 3)
    with pytest.raises(KeyError, match="no input 'image'; there are 0, 1"):
        packing.columns("image")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, ValueError, "empty collection"),
        ({"a": [1, 2]}, TypeError, "input 'a' must be a NumPy array of numbers .*; got list"),
        ({"a": np.array(["x"])}, TypeError, "got dtype <U1"),
        (
            {"a": SCALAR, "b": TOKENS[:1]},
            ValueError,
            "one row an example; got a: 2 rows, b: 1 rows",
        ),
        ({"a": np.array([2**24 + 1])}, ValueError, "beyond 16777216"),
        ({"a": np.array([-(2**24) - 1])}, ValueError, "beyond 16777216"),
        ({"a": np.array([2**64 - 1], np.uint64)}, ValueError, "beyond 16777216"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    inputs: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pack(inputs)


def test_a_probe_of_several_inputs_is_ordered_and_checked_like_any_other() -> None:
    probe = Probe.of_several({"image": IMAGE, "tokens": TOKENS}, np.array([0, 1]), np.array([5, 2]))
    assert probe.sample_ids.tolist() == [2, 5]
    assert probe.packing is not None
    np.testing.assert_array_equal(probe.packing.taken_apart(probe.inputs)["tokens"], TOKENS[::-1])
    broken = IMAGE.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="the first with sample id 1"):
        Probe.of_several([broken], np.array([0, 1])).check_finite(0, 2)
