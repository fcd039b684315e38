"""Texts become values of the annotated types; `test_settings` has them within settings."""

from pathlib import Path
from typing import Literal

import pytest

from hvd_xai.lookup.setting_values import read_value


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("0", str | int | None, 0),
        ("none", str | int | None, None),
        ("head", str | int | None, "head"),
        ("0.5", float | None, 0.5),
        ("no", bool, False),
        ("a/b", Path, Path("a/b")),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("2", Literal[1, 2], 2),
    ],
)
def test_a_text_is_read_as_the_annotated_type(text: str, annotation: object, value: object) -> None:
    found = read_value(text, annotation)
    assert (found, type(found)) == (value, type(value))


def test_what_cannot_be_written_as_a_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="cannot be written on the command line"):
        read_value("a", dict[str, int])
