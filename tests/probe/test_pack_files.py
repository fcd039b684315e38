"""Several inputs of a data set, packed from files as `Probe.of_several` packs arrays."""

from pathlib import Path

import numpy as np
import pytest

from hvd_xai.probe import pack_files as module
from hvd_xai.probe.dataset_format import ModelInputs
from hvd_xai.probe.pack_files import pack_files
from hvd_xai.probe.probe import Probe
from hvd_xai.probe.unpacked import SEVERAL, open_unpacked

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "age": np.arange(7),
    "history": RANDOM.normal(size=(7, 3)),
    "photo": RANDOM.random((7, 2, 2), np.float32),
}
INPUTS = ModelInputs(((1,), (3,), (2, None)), tuple(ARRAYS), keyed=True)


def _write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    (folder / SEVERAL).mkdir()
    for name, values in arrays.items():
        np.save(folder / SEVERAL / f"{name}.npy", values)
    return folder


def test_files_are_packed_as_arrays_are_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)  # two rows and a bit
    pack_files(_write(tmp_path, ARRAYS), INPUTS)
    probe = open_unpacked(tmp_path)
    expected = Probe.of_several(ARRAYS, np.zeros(7, np.int32))
    np.testing.assert_array_equal(probe.inputs, expected.inputs)
    assert probe.packing == expected.packing
    assert not (tmp_path / SEVERAL).exists()


def test_a_model_that_takes_a_list_gets_the_inputs_in_its_order(tmp_path: Path) -> None:
    table = {name: ARRAYS[name] for name in ("history", "age")}
    pack_files(_write(tmp_path, table), ModelInputs(((3,), (1,)), tuple(table)))
    probe = open_unpacked(tmp_path)
    assert probe.packing is not None
    assert not probe.packing.keyed
    assert probe.feature_names == ("history[0]", "history[1]", "history[2]", "age")


def test_of_a_model_that_says_nothing_numbers_are_a_list_and_names_a_dict(tmp_path: Path) -> None:
    for place, names in enumerate((("10", "9"), ("b", "a"))):
        folder = tmp_path / str(place)
        folder.mkdir()
        pack_files(_write(folder, dict(zip(names, ARRAYS.values(), strict=False))), ModelInputs())
        packing = open_unpacked(folder).packing
        assert packing is not None
        assert (packing.names, packing.keyed) == ((("9", "10"), False), (("a", "b"), True))[place]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"age": None},
            r"no array 'age'; the model takes 'age' \(None, 1\), 'history' \(None, 3\), .*by its",
        ),
        ({"history": np.zeros((7, 4))}, r"'history' .*\(None, 3\); the data set's has \(7, 4\)"),
        ({"history": np.zeros((6, 3))}, "one row an example; got .*history: 6 rows"),
        ({"age": np.array(["a"] * 7)}, "'age' must be numbers .*<U1"),
        ({"age": np.array([{}] * 7)}, "age.npy' cannot be read"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(
    tmp_path: Path, changed: dict[str, np.ndarray | None], message: str
) -> None:
    arrays = {name: values for name, values in {**ARRAYS, **changed}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        pack_files(_write(tmp_path, arrays), INPUTS)
