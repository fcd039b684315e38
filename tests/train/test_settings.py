import json

import pytest

from hvd_xai.lookup.recipes import Recipe
from hvd_xai.train.settings import Settings


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"warmup_epochs": -0.5}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="epochs and batch_size must be 1 or more"):
        Settings(**wrong)  # type: ignore[arg-type]  # a field of each type is tried


def test_a_function_gets_the_options_of_its_label() -> None:
    settings = Settings(options={"tiny.build": {"units": 5}})
    assert settings.options_for("tiny.build") == {"units": 5}
    assert settings.options_for("tiny.load") == {}


def test_the_config_is_json_whatever_the_options_are() -> None:
    settings = Settings(epochs=3, options={"tiny.build": {"activation": max}})
    config = settings.config(Recipe("tiny", "a/tiny.py", {}), [Recipe("mine", "b/mine.py", {})])
    read = json.loads(json.dumps(config))
    assert (read["recipe"], read["callbacks"], read["epochs"]) == ("a/tiny.py", ["b/mine.py"], 3)
    assert read["options"] == {"tiny.build": {"activation": str(max)}}
