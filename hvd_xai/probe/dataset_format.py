"""What a data set format is asked, and what users tell it beside the data set."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from hvd_xai.probe.unpacked import ARRAYS, LISTS


@dataclass(frozen=True, slots=True)
class Feature:
    """Tells where the examples of a TFRecord file hold an array, and how it is encoded.

    Args:
        key: name of the feature in each example.
        kind: `float32` or `int64` for lists of numbers, `image` for an encoded JPEG or PNG, any
            other dtype for raw little-endian bytes.
        shape: shape of one example's value.
    """

    key: str
    kind: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "tuple[str, Feature]":
        """Reads `inputs=x:float32:8,8,1` as the name of an array and the feature that holds it.

        Raises:
            ValueError: if the text is not of this form.

        Example:
            >>> Feature.parse("targets=y:int64")
            ('targets', Feature(key='y', kind='int64', shape=()))
        """
        found = re.fullmatch(r"(\w+)=([^:]+):(\w+)(?::(\d+(?:,\d+)*))?", text)
        if found is None or found[1] in LISTS:
            raise ValueError(
                "a feature is written as name=key:kind:shape, such as inputs=x:float32:8,8,1;"
                f" names: {', '.join(ARRAYS)}, or those of a model's several inputs; got '{text}'"
            )
        try:
            dtype = np.dtype("u1" if found[3] == "image" else found[3])
            if dtype.kind not in "fiub":
                raise TypeError(f"{dtype} is no number")
        except TypeError as error:
            raise ValueError(
                f"'{found[3]}' in the feature '{text}' must be 'image' or a NumPy dtype of numbers"
            ) from error
        return found[1], cls(
            found[2],
            found[3],
            tuple(int(length) for length in (found[4] or "").split(",") if length),
        )


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Describes what a model says of its inputs; empty for a model that says nothing.

    Args:
        shapes: shape of one example of each input, without the axis of examples.
        names: names of the inputs, of a model of several; "0", "1", ... where they have none.
        keyed: whether the model takes a dict by these names, and not a list.
    """

    shapes: tuple[tuple[int | None, ...], ...] = ()
    names: tuple[str, ...] = ()
    keyed: bool = False

    def __str__(self) -> str:
        pairs = zip(self.names, self.shapes, strict=True)
        return ", ".join(f"'{name}' {(None, *shape)}" for name, shape in pairs)


@dataclass(frozen=True, slots=True)
class Hints:
    """Tells a format what the data set itself does not say.

    Args:
        features: features of TFRecord examples, by the array that each becomes.
        inputs: what the model says of its inputs; their shape sets the size and the channels of
            images.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    inputs: ModelInputs = ModelInputs()

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of the model's only input; empty if there are several, or the model does not say.

        Example:
            >>> Hints(inputs=ModelInputs(((28, 28, 1),))).input_shape
            (28, 28, 1)
        """
        return self.inputs.shapes[0] if len(self.inputs.shapes) == 1 else ()

    def find_several(self, there: Collection[str]) -> tuple[str, ...]:
        """Returns the arrays of a data set that are the several inputs of a model.

        Args:
            there: names of all arrays of the data set.

        Returns:
            Names of the arrays, in the model's order; empty for a model of one input. A model that
            does not tell its inputs takes all arrays of other names than a data set's own.

        Example:
            >>> Hints().find_several(["age", "photo", "targets"])
            ('age', 'photo')
            >>> Hints().find_several(["inputs", "weights", "targets"])
            ()
        """
        if self.inputs.names:
            return tuple(name for name in self.inputs.names if name in there)
        if self.inputs.shapes or "inputs" in there:
            return ()
        others = tuple(name for name in there if name not in (*ARRAYS, *LISTS))
        return others if len(others) > 1 else ()


class Match(IntEnum):
    """How surely a file or folder has a format; the surest format reads it."""

    NO = 0
    POSSIBLE = 1
    """Nothing speaks against it: the format reads it if no other format is certain."""
    CERTAIN = 2
    """Its name or its content says so."""


@runtime_checkable
class Format(Protocol):
    """A data set format, which a module of `hvd_xai/probe/datasets/` fills."""

    ACCEPTS: str

    def match(self, source: Path, /) -> Match:
        """Says how surely a file or folder that exists has this format."""

    def unpack(self, source: Path, folder: Path, hints: Hints, /) -> None:
        """Writes the data set's arrays and names into an empty folder.

        Raises:
            ValueError: if the data set is damaged, or the hints do not fit it.
            OSError: if the data set cannot be read.
            CheckpointError: if the folder cannot be written.
        """
