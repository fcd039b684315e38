import json
from typing import Any

import pytest

from hvd_xai.checkpoint.json_record import Fields, seal, unseal
from hvd_xai.errors import CheckpointError


def test_what_could_not_be_read_is_not_sealed() -> None:
    deep: Any = 0
    for _ in range(99):
        deep = {"a": deep}
    assert json.loads(seal({"options": deep}))["options"] == deep
    with pytest.raises(ValueError, match="100 lists and objects within each other at most"):
        seal({"options": {"a": deep}})


def test_what_was_sealed_is_read_back() -> None:
    fields = unseal(seal({"schema": "1.1", "names": ("a", "b"), "share": 0.5}), "here")
    assert (fields.names("names"), fields.number("share")) == (("a", "b"), 0.5)


def test_an_optional_value_may_be_absent_or_null_but_not_of_another_type() -> None:
    fields = Fields({"share": 0.5, "nothing": None, "word": "many"}, "here")
    assert fields.optional("share", fields.number) == 0.5
    assert fields.optional("nothing", fields.number) is None
    assert fields.optional("absent", fields.number) is None
    with pytest.raises(CheckpointError, match="here must have a number under 'word'; got 'many'"):
        fields.optional("word", fields.number)
    with pytest.raises(CheckpointError, match="true or false under 'share'"):
        fields.claim("share")


def test_metrics_are_numbers_or_lists_of_numbers_in_which_null_may_stand() -> None:
    metrics: Any = {"loss": 1, "f1": [0.5, None, [2]]}
    assert Fields({"metrics": metrics}, "here").numbers_or_lists("metrics") == metrics
    for wrong in (None, "much", True, {"a": 1}, [True], [["much"]]):
        with pytest.raises(
            CheckpointError, match="an object of numbers, or of lists of numbers under"
        ):
            Fields({"metrics": {"loss": wrong}}, "here").numbers_or_lists("metrics")
