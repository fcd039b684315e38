"""A function is traced once for each shape and dtype of an example, and called in bounded parts."""

import numpy as np
import pytest
import tensorflow as tf

from hvd_xai.tracing import compiled
from hvd_xai.tracing.compiled import Compiled, read_signature


def double(
    inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    return 2 * inputs, {"target": targets, "id": ids}


def test_is_traced_once_for_each_shape_and_dtype_of_an_example() -> None:
    doubled = Compiled(double, 4)
    for n in (3, 0, 9):
        inputs, ids = np.arange(2.0 * n).reshape(n, 2), np.arange(n)
        got, per_sample = doubled(inputs, ids, ids + 100)
        np.testing.assert_array_equal(got, 2 * inputs)
        np.testing.assert_array_equal(per_sample["id"], ids + 100)
    assert doubled.n_traces == 1
    doubled(np.zeros((2, 3)), np.arange(2), np.arange(2))
    doubled(np.zeros((2, 2), np.int32), np.arange(2), np.arange(2))
    assert doubled.n_traces == 3


def test_many_examples_go_in_parts_of_whole_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_BYTES_PER_CALL", 80)  # 10 examples: two micro-batches

    def count(inputs: tf.Tensor, targets: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(inputs)[:1], tf.shape(inputs)[0])

    sizes = Compiled(count, 4)(np.zeros((21, 2), np.float32), np.arange(21), np.arange(21))
    np.testing.assert_array_equal(sizes, [8] * 16 + [5] * 5)


@pytest.mark.parametrize(
    ("dtype", "target_dtype", "want"),
    [
        ("float64", "int32", ("float32", "int64")),
        ("float16", "float64", ("float32", "float32")),
        ("uint8", "uint8", ("uint8", "int64")),
    ],
)
def test_dtypes_of_inputs_and_targets(dtype: str, target_dtype: str, want: tuple[str, str]) -> None:
    signature = read_signature(np.zeros((5, 4, 3), dtype), np.zeros(5, target_dtype))
    assert signature == ((4, 3), *want)
