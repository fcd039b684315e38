import sys
from dataclasses import replace

import numpy as np
import pytest

from hvd_xai import Probe
from tests import processes

INPUTS = np.zeros((3, 2, 2, 1), np.float32)
TARGETS = np.array([0, 1, 2])


def test_rows_are_ordered_by_sample_id() -> None:
    probe = Probe(INPUTS, TARGETS, np.array([7, 1, 3]), labels=TARGETS + 10)
    assert probe.sample_ids.tolist() == [1, 3, 7]
    assert probe.targets.tolist() == [1, 2, 0]
    assert probe.labels is not None
    assert probe.labels.tolist() == [11, 12, 10]


@pytest.mark.parametrize("name", ["inputs", "targets", "sample_ids", "labels"])
def test_what_is_no_array_is_refused_at_once(name: str) -> None:
    # in a process of its own, where annotations are not checked: a user has no beartype
    program = f"""
import numpy as np
from hvd_xai import Probe
Probe(**{{"inputs": np.zeros((3, 2)), "targets": np.arange(3), "{name}": [0, 1, 2]}})
"""
    done = processes.run([sys.executable, "-c", program])
    assert f"TypeError: the probe's '{name}' must be a NumPy array; got list" in done.stderr


@pytest.mark.parametrize("sample_ids", [np.array([0, 1, 1]), np.array([0.0, 1.0, 2.0])])
def test_sample_ids_are_unique_integers(sample_ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match="sample_ids"):
        Probe(INPUTS, TARGETS, sample_ids)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_inputs_are_finite_in_float32(value: float) -> None:
    inputs = INPUTS.astype(np.float64)
    inputs[2, 1, 1] = value
    probe = Probe(inputs, TARGETS, np.array([10, 11, 12]))
    probe.check_finite(0, 2)
    with pytest.raises(ValueError, match="1 of 2 rows are not, the first with sample id 12"):
        probe.check_finite(1, 3)


@pytest.mark.parametrize("name", ["inputs", "targets", "labels"])
def test_a_single_value_has_no_rows(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must have one row an example"):
        replace(Probe(INPUTS, TARGETS, labels=TARGETS), **{name: np.array(1)})  # type: ignore[arg-type]  # the names are those of arrays


def test_integers_are_always_finite() -> None:
    Probe(INPUTS.astype(np.uint8), TARGETS).check_finite(0, 3)


@pytest.mark.parametrize(
    "ids",
    [np.array([-1, 2, 3]), np.array([0.5, 1, 2]), np.array([0, 1, 2**63], np.uint64)],
    ids=str,
)
def test_sample_ids_are_whole_numbers_from_0_on(ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to"):
        Probe(INPUTS, TARGETS, ids)


def test_labels_are_integers_where_the_targets_are() -> None:
    with pytest.raises(ValueError, match="labels must be integers"):
        Probe(INPUTS, TARGETS, labels=np.zeros(3))


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        (
            (3, 2),
            ("age", "income", "debt"),
            r"inputs of shape \(3, 2\) must be 2 names; got 3: age, income, debt",
        ),
        ((3, 2), ("age", "age"), "'age' stands 2 times"),
        (
            (3, 2, 2, 1),
            ("age", "income"),
            r"none: only a table has them, whose inputs are \[N, d\]; got 2",
        ),
        ((3,), ("age",), "none: only a table"),
    ],
)
def test_feature_names_are_one_for_each_column_of_a_table(
    shape: tuple[int, ...], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Probe(np.zeros(shape, np.float32), TARGETS, feature_names=names)


def test_names_and_words_may_be_no_tuples() -> None:
    # in a process of its own, where annotations are not checked: scikit-learn's and pandas' names
    # are arrays, Keras's words are a list
    program = """
import numpy as np
from hvd_xai import Probe
print(Probe(np.zeros((1, 2)), np.zeros(1), feature_names=np.array(["age", "income"])).feature_names)
print(Probe(np.zeros((1, 2)), np.zeros(1), vocabulary=["", "fine"]).vocabulary)
"""
    done = processes.run([sys.executable, "-c", program])
    assert done.stdout == "('age', 'income')\n('', 'fine')\n"


TOKENS = np.array([[2, 3, 0], [1, 2, 0], [3, 3, 3]])
WORDS = ("", "[UNK]", "fine", "bad")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_token_ids_are_whole_numbers_of_the_vocabulary(dtype: type) -> None:
    assert Probe(TOKENS.astype(dtype), TARGETS, vocabulary=WORDS).vocabulary == WORDS
    with pytest.raises(
        ValueError,
        match=r"has 3 words, of token ids 0 to 2; sample id 5 has token id 3\. Give the vocabulary",
    ):
        Probe(TOKENS.astype(dtype)[::-1], TARGETS, np.array([9, 7, 5]), vocabulary=WORDS[:3])


@pytest.mark.parametrize(("value", "said"), [(-1, "-1"), (1.5, "1.5"), (np.nan, "nan")])
def test_what_is_no_token_id_has_no_word(value: float, said: str) -> None:
    tokens = TOKENS.astype(np.float32)
    tokens[1, 2] = value
    with pytest.raises(ValueError, match=f"sample id 1 has token id {said}"):
        Probe(tokens, TARGETS, vocabulary=WORDS)


def test_only_texts_have_a_vocabulary() -> None:
    with pytest.raises(ValueError, match="give the probe one of them, not both"):
        Probe(TOKENS, TARGETS, feature_names=("a", "b", "c"), vocabulary=WORDS)
    with pytest.raises(
        ValueError,
        match=r"token ids \[N, T\]; got inputs of shape \(3, 2, 2, 1\) and dtype float32",
    ):
        Probe(INPUTS, TARGETS, vocabulary=WORDS)
    several = Probe.of_several([TOKENS, INPUTS], TARGETS)
    with pytest.raises(ValueError, match="got several inputs"):
        replace(several, vocabulary=WORDS)
