"""Writes JSON records that carry their own digest, and reads them strictly.

Manifests come from disks and from other people: their size, form and types are checked before they
are used.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import xxhash

from hvd_xai.errors import CheckpointError
from hvd_xai.protocols import Json

T = TypeVar("T")

MAJOR = 1
SCHEMA = f"{MAJOR}.1"
"""1.1 added facts about the method to manifests, which were read out of its options before."""
MAX_BYTES = 16 * 2**20
"""The longest record that is read: 100,000 files fit, and a wrong file does not fill the memory."""

_MAX_DEPTH = 100
"""The most lists and objects within each other: options of methods within methods have some ten,
and Python goes only so deep."""

_HEX = re.compile(r"[0-9a-f]{32}")


def plain(value: Json) -> Json:
    """Converts a value to dict, list and scalars, as `json` needs it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _digest(record: Mapping[str, Json]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return xxhash.xxh3_128_hexdigest(text.encode())


def seal(record: Mapping[str, Json]) -> bytes:
    """Returns the record as JSON text that carries its own digest.

    The key `digest` is the xxh3-128 of everything else in canonical form.

    Raises:
        ValueError: if a number is not finite, or the text would be longer or deeper than `unseal`
            accepts.
        TypeError: if a value is not JSON.
    """
    values = {key: plain(value) for key, value in record.items()}
    text = (
        json.dumps({**values, "digest": _digest(values)}, indent=1, sort_keys=True, allow_nan=False)
        + "\n"
    ).encode()
    if _depth(values) > _MAX_DEPTH:
        raise ValueError(
            f"a record has {_MAX_DEPTH} lists and objects within each other at most; this one has"
            " more"
        )
    if len(text) > MAX_BYTES:
        longest = max(values, key=lambda key: len(json.dumps(values[key])))
        raise ValueError(
            f"a record has {MAX_BYTES} bytes at most; this one would have {len(text)}, most of them"
            f" for '{longest}'"
        )
    return text


def unseal(text: bytes, where: str) -> "Fields":
    """Reads a record that `seal` wrote.

    Args:
        text: content of the file.
        where: name of the file, for messages.

    Raises:
        CheckpointError: if the text is too long, not JSON, of a higher major schema, or does not
            fit its digest.
    """
    if len(text) > MAX_BYTES:
        raise CheckpointError(
            f"{where} has {len(text)} bytes; no record of hvd_xai has more than {MAX_BYTES}. Is it"
            " another program's file?"
        )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{where} is not readable JSON ({error}); the file is damaged or half copied. Restore"
            " it or delete its folder."
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{where} must hold a JSON object; got {type(values).__name__}")
    if _depth(values) > _MAX_DEPTH:
        raise CheckpointError(
            f"{where} has more than {_MAX_DEPTH} lists and objects within each other; no record of"
            " hvd_xai has"
        )
    fields = Fields(values, where)
    _check_schema(fields.text("schema"), where)
    said = fields.digest("digest")
    try:
        found = _digest({key: value for key, value in values.items() if key != "digest"})
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{where} holds a number that no record of hvd_xai holds ({error})"
        ) from error
    if said != found:
        raise CheckpointError(
            f"{where} was changed after it was written: its digest is {found}, but it says {said}."
            " Restore it from a copy."
        )
    return fields


def _depth(values: Json) -> int:
    """Returns how deeply lists and objects are nested."""
    depth, level = 0, [values]
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    return depth


def _check_schema(schema: str, where: str) -> None:
    """Refuses a higher major schema; a higher minor one only adds keys, which are ignored."""
    if not re.fullmatch(r"\d{1,4}\.\d{1,4}", schema):
        raise CheckpointError(f"{where} must say its schema as 'major.minor'; got {schema!r}")
    major = int(schema.partition(".")[0])
    if major > MAJOR:
        raise CheckpointError(
            f"{where} has schema {schema}; this hvd_xai reads up to {MAJOR}.x. Upgrade hvd_xai."
        )


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object whose values are read by name and type.

    Every method raises `CheckpointError` if the key is absent or its value has another type. Keys
    that nobody asks for are ignored.
    """

    values: Mapping[str, Json]
    where: str

    def _wrong(self, key: str, expected: str) -> CheckpointError:
        got = repr(self.values[key])[:80] if key in self.values else "nothing"
        return CheckpointError(f"{self.where} must have {expected} under '{key}'; got {got}")

    def text(self, key: str) -> str:
        """Returns a string."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def digest(self, key: str) -> str:
        """Returns an xxh3-128 as 32 hexadecimal digits."""
        value = self.text(key)
        if not _HEX.fullmatch(value):
            raise self._wrong(key, "32 hexadecimal digits")
        return value

    def integer(self, key: str) -> int:
        """Returns an integer of 0 or more that fits 63 bits."""
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self._wrong(key, "an integer of 0 or more")
        return value

    def number(self, key: str) -> float:
        """Returns a number."""
        value = self.values.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key, "a number")
        return float(value)

    def claim(self, key: str) -> bool:
        """Returns true or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        """Returns what one of the methods above reads; None if the key is absent or null."""
        return None if self.values.get(key) is None else read(key)

    def mapping(self, key: str) -> Mapping[str, Json]:
        """Returns an object with any values."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self._wrong(key, "an object")
        return value

    def texts(self, key: str) -> dict[str, str]:
        """Returns an object whose values are strings."""
        value = self.mapping(key)
        if not all(isinstance(item, str) for item in value.values()):
            raise self._wrong(key, "an object of strings")
        return {name: str(item) for name, item in value.items()}

    def numbers_or_lists(self, key: str) -> dict[str, Json]:
        """Returns an object of numbers and of lists of numbers, where null may stand for one."""
        value = self.mapping(key)
        if not all(_is_number(item) or _is_list_of_numbers(item) for item in value.values()):
            raise self._wrong(key, "an object of numbers, or of lists of numbers")
        return {name: _as_floats(item) for name, item in value.items()}

    def _list(self, key: str, kind: type, expected: str) -> list[Json]:
        value = self.values.get(key)
        if not isinstance(value, list) or not all(
            isinstance(item, kind) and not isinstance(item, bool) for item in value
        ):
            raise self._wrong(key, expected)
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """Returns a list of integers of 0 or more."""
        value = [
            int(item)
            for item in self._list(key, int, "a list of integers of 0 or more")
            if isinstance(item, int)
        ]
        if not all(0 <= item < 2**63 for item in value):
            raise self._wrong(key, "a list of integers of 0 or more")
        return tuple(value)

    def names(self, key: str) -> tuple[str, ...]:
        """Returns a list of strings."""
        return tuple(str(item) for item in self._list(key, str, "a list of strings"))

    def records(self, key: str) -> "list[Fields]":
        """Returns a list of objects."""
        items = self._list(key, dict, "a list of objects")
        return [
            Fields(item, f"{self.where}, {key}[{index}]")
            for index, item in enumerate(items)
            if isinstance(item, Mapping)
        ]


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of_numbers(value: Json) -> bool:
    return isinstance(value, list) and all(
        item is None or _is_number(item) or _is_list_of_numbers(item) for item in value
    )


def _as_floats(value: Json) -> Json:
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int | float) else None
