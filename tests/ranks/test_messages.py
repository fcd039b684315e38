"""What one rank says arrives at the others as it was."""

import pytest

from hvd_xai.ranks import messages


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**53 + 1,
        1e-323,
        "Größe\n",
        [],
        (),
        ((1, "a"), [(2.5, None)]),
        {"b": (1,), "a": {"c": [()]}},
    ],
)
def test_a_value_arrives_as_it_was_sent(value: object) -> None:
    arrived = messages.from_bytes(messages.to_bytes(value))
    assert arrived == value
    # 1 equals True, and 1.0 equals 1; their texts differ.
    assert repr(arrived) == repr(value)


def test_a_value_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        messages.to_bytes({"a set": {1}})
