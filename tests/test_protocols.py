"""What a method states of its attributions leaves TensorFlow's functions with them."""

from typing import Any

import pytest
import tensorflow as tf

from hvd_xai.protocols import Attributed
from hvd_xai.tracing import micro_batches

FACTS: list[dict[str, Any]] = [
    {},
    {"attributed_to": "places", "signed": True},
    {"attributed_to": "units", "signed": False},
]


@pytest.mark.parametrize("facts", FACTS)
def test_tensorflow_sees_tensors_only_and_hands_the_facts_on(facts: dict[str, Any]) -> None:
    def attribute(x: tf.Tensor) -> Attributed:
        return Attributed(2 * x, {"first": x[:, 0]}, **facts)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def in_micro_batches(x: tf.Tensor) -> Attributed:
        attributed: Attributed = micro_batches.map_blocks(attribute, (x,), 2)
        return attributed

    returned = in_micro_batches(tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert returned.attributions.numpy().tolist() == [[2, 4], [6, 8], [10, 12]]
    assert returned.per_sample["first"].numpy().tolist() == [1, 3, 5]
    assert (returned.attributed_to, returned.signed) == (
        facts.get("attributed_to"),
        facts.get("signed"),
    )
    assert len(tf.nest.flatten(returned)) == 2


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("attributed_to", "input", "one of 'inputs', 'places', 'units', or None; got 'input'"),
        ("signed", "yes", "signed is True, False or None; got 'yes'"),
    ],
)
def test_facts_that_no_reader_knows_are_refused(field: str, value: str, complaint: str) -> None:
    # In these tests types are checked before the record can refuse, so its own check runs last.
    attributed = Attributed(tf.zeros([1]))
    object.__setattr__(attributed, field, value)
    with pytest.raises(ValueError, match=complaint):
        attributed.__post_init__()
