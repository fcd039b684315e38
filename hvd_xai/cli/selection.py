"""Which explanations and samples a command is asked for: what people write, as objects."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.reader import Explanations
from hvd_xai.errors import CheckpointError, write_epochs, write_ranges

MAX_SAMPLES = 500


def select_explanations(
    explanations: Explanations, epoch: str, methods: Sequence[str]
) -> list[Explanation]:
    """Opens the explanations that are asked for; at least one.

    They come in order of epoch. Within an epoch the finest come first: attributions of each pixel,
    and then the coarse maps that are laid over the input.

    Args:
        explanations: the run's explanations.
        epoch: an epoch, `all` or `newest`.
        methods: names of the methods; all if empty.

    Raises:
        CheckpointError: if the run holds no explanation yet.
        ValueError: if there is no such epoch or method.
    """
    epochs = explanations.epochs
    if not epochs:
        raise CheckpointError(
            f"{explanations.path} holds no explanation yet; one is committed at the end of each"
            " epoch that is explained"
        )
    by_epoch = {number: explanations.methods(number) for number in epochs}
    known = sorted({name for names in by_epoch.values() for name in names})
    absent = [name for name in methods if name not in known]
    if absent:
        raise ValueError(
            f"there is no method '{absent[0]}' in this run; there are: {', '.join(known)}"
        )
    explained = [number for number in epochs if not methods or set(methods) & set(by_epoch[number])]
    if epoch == "all":
        wanted = explained
    elif epoch == "newest":
        wanted = explained[-1:]
    elif epoch.isdecimal() and int(epoch) in explained:
        wanted = [int(epoch)]
    else:
        by_methods = f" of {', '.join(methods)}" if methods else ""
        raise ValueError(
            f"there is no epoch {epoch}{by_methods} in this run; there are:"
            f" {write_ranges(explained)}, and 'all'"
        )
    opened = [
        explanations.explanation(number, name)
        for number in wanted
        for name in by_epoch[number]
        if not methods or name in methods
    ]
    return sorted(
        opened,
        key=lambda one: (one.manifest.epoch, -math.prod(one.sample_shape), one.manifest.method),
    )


def select_epochs(
    explanations: Explanations, epochs: Sequence[int], methods: Sequence[str]
) -> dict[str, list[int]]:
    """Returns the epochs of each method that are asked for.

    Args:
        explanations: the run's explanations.
        epochs: the epochs; all if empty.
        methods: names of the methods; all if empty.

    Raises:
        CheckpointError: if there is no such epoch or method, or no explanation of both.
    """
    run, by_method = explanations.path, explanations.epochs_by_method
    there = {number for numbers in by_method.values() for number in numbers}
    absent = [number for number in epochs if number not in there]
    if absent:
        raise CheckpointError(
            f"{run} has no explanation of epoch {absent[0]}; there are the epochs"
            f" {write_ranges(sorted(there))}"
        )
    unknown = [name for name in methods if name not in by_method]
    if unknown:
        raise CheckpointError(
            f"{run} has no explanation by '{unknown[0]}'; methods with one:"
            f" {', '.join(by_method) or 'none yet'}"
        )
    wanted = {
        name: [number for number in by_method[name] if not epochs or number in epochs]
        for name in methods or by_method
    }
    wanted = {name: numbers for name, numbers in wanted.items() if numbers}
    if not wanted:
        raise CheckpointError(
            f"{run} holds no such explanation; there are: {write_epochs(by_method)}"
        )
    return wanted


def parse_sample_ids(said: Sequence[str], stored: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "m"]:
    """Returns the sample ids that are meant, each once, in the order given.

    Args:
        said: what people write: `17`, `0-31`, or `3,5,8`.
        stored: sample ids of the run, ascending.

    Raises:
        ValueError: if a text is not of this form, a sample is not stored, or there are too many.

    Example:
        >>> parse_sample_ids(["2-4", "7,3"], np.arange(10)).tolist()
        [2, 3, 4, 7]
    """
    wanted: dict[int, None] = {}
    for part in (part.strip() for text in said for part in text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(
                "sample ids are numbers such as 17, ranges such as 0-31, or several with commas;"
                f" got {part!r}"
            )
        if dash and int(last) < int(first):
            raise ValueError(f"a range of sample ids ends where it begins or later; got {part!r}")
        # before the range is spread out, which may be of any length
        if int(last or first) - int(first) + len(wanted) >= MAX_SAMPLES:
            raise ValueError(f"at most {MAX_SAMPLES} samples can be shown at a time; ask for fewer")
        wanted.update(dict.fromkeys(range(int(first), int(last or first) + 1)))
    absent = [sample_id for sample_id in wanted if sample_id not in stored]
    if absent:
        raise ValueError(
            f"there is no sample {absent[0]} in this run; there are:"
            f" {write_ranges(stored.tolist())}"
        )
    return np.array(list(wanted), np.int64)
