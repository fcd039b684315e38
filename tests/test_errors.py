"""Errors say what happened, and some of them are raised on every rank."""

import ast
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvd_xai import errors
from hvd_xai.errors import (
    HvdXaiError,
    PeerError,
    advise,
    advising_command_line,
    is_agreed,
    mark_agreed,
    shorten,
    write_epochs,
    write_ranges,
)


def test_a_peers_error_says_who_failed_where_at_what() -> None:
    error = PeerError("opening the run", [(2, "node-7", "OSError: the disk is full")])
    assert str(error) == "opening the run: rank 2 on node-7 failed: OSError: the disk is full"
    assert (error.phase, error.failures[0][0]) == ("opening the run", 2)


def test_of_several_peers_the_first_is_named_and_the_others_are_counted() -> None:
    failures = [(rank, f"node-{rank}", f"OSError: disk {rank} is full") for rank in (1, 2, 5)]
    said = str(PeerError("writing", failures))
    assert "rank 1 on node-1 failed (2 more ranks failed too): OSError: disk 1 is full" in said


def test_an_error_is_agreed_once_it_is_marked() -> None:
    error = ValueError("the ranks hold different weights")
    assert not is_agreed(error)
    assert mark_agreed(error) is error
    assert is_agreed(error)


def test_an_attribute_that_only_looks_like_the_mark_is_none() -> None:
    error = OSError("the disk is full")
    error.agreed = "by the committee"  # type: ignore[attr-defined]
    assert not is_agreed(error)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if getattr(kind, "__module__", "") == errors.__name__ and isinstance(kind, type)
    ],
)
def test_every_error_is_caught_by_its_base(kind: type) -> None:
    assert issubclass(kind, HvdXaiError)


def test_a_missing_horovod_is_an_import_error_too() -> None:
    assert issubclass(errors.HorovodMissingError, ImportError)


def test_advice_is_in_the_words_of_who_started_the_job() -> None:
    def said() -> str:
        return advise(script="pass mode='resume'", command="add --resume")

    # a thread that writes files is of the same process
    with advising_command_line(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(said).result() == said() == "add --resume"
    assert said() == "pass mode='resume'"


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (np.zeros((3, 400)), "an array of shape (3, 400) and dtype float64"),
        (
            partial(max, np.zeros(900), key=partial(str, object="a" * 200)),
            f"max(an array of shape (900,) and dtype float64, key=str(object='{'a' * 79}...))",
        ),
        ({"score": list(range(9))}, "{'score': [0, 1, 2, 3, 4, ...]}"),
        ((np.zeros(2), "b"), "(an array of shape (2,) and dtype float64, 'b')"),
        (3.5, "3.5"),
        ("logits", "'logits'"),
    ],
)
def test_whatever_is_given_is_short_in_an_error(value: object, short: str) -> None:
    assert shorten(value) == short


def test_many_numbers_are_few_ranges() -> None:
    assert write_ranges([*range(1000), 1002]) == "0-999, 1002"
    assert write_ranges(range(0, 40, 2)).endswith(", 14, ... 38")
    assert write_epochs({"saliency": range(900), "grad_cam": [2]}).startswith(
        "saliency of epochs 0-899; grad_cam of"
    )
    assert write_epochs({}) == "none yet"


# Files whose functions commands alone call, so that the words are those of the command line; and
# whole commands to type.
OF_COMMANDS = (
    *("cli", "environment", "train", "keras/model_files.py"),
    *("lookup/settings.py", "lookup/methods.py"),
)
WHOLE_COMMANDS = re.compile(r"`hvd-xai [^`]*`|pip install .*|srun --\w+|horovodrun --gloo")
OPTION = re.compile(r"(?<![\w-])--[a-z]")


def _options_advised(tree: ast.AST) -> Iterator[str]:
    """Yields raised texts that name an option of the command line, but for those of `advise`."""
    chosen = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "advise"
        for part in ast.walk(node)
    }
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    for node in (part for one in raised for part in ast.walk(one)):
        if not isinstance(node, ast.Constant) or id(node) in chosen:
            continue
        if OPTION.search(WHOLE_COMMANDS.sub("", str(node.value))):
            yield f"line {node.lineno}: {node.value!r}"


def test_an_error_that_scripts_can_meet_advises_no_option_of_the_command_line() -> None:
    folder = Path(errors.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {one}"
        for path in sorted(folder.rglob("*.py"))
        if not str(path.relative_to(folder)).startswith(OF_COMMANDS)
        for one in _options_advised(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, f"say it with advise(script=..., command=...): {found}"


# Annotations of what may be, or hold, an array.
MAY_BE_LARGE = re.compile(r"ndarray|Tensor\b|\bScore\b|\bBaseline\b|\bAttribution\b|\bobject\b")


def _printed_whole(tree: ast.AST) -> Iterator[str]:
    """Yields names of parameters and fields that a raised text holds as they are."""
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            annotated = {one.arg: one.annotation for one in arguments if one.annotation}
        elif isinstance(scope, ast.ClassDef):
            fields = [node for node in scope.body if isinstance(node, ast.AnnAssign)]
            annotated = {f"self.{ast.unparse(one.target)}": one.annotation for one in fields}
        else:
            continue
        large = {name for name, one in annotated.items() if MAY_BE_LARGE.search(ast.unparse(one))}
        raised = [node for node in ast.walk(scope) if isinstance(node, ast.Raise)]
        for node in (part for one in raised for part in ast.walk(one)):
            if isinstance(node, ast.FormattedValue) and ast.unparse(node.value) in large:
                yield f"line {node.lineno}: {ast.unparse(node.value)}"


def test_a_value_that_is_printed_whole_is_found() -> None:
    source = """
def method(inputs: np.ndarray, n: int, *, score: str | Score) -> None:
    raise ValueError(f"{n} of {score!r} with {inputs.shape}")
class Probe:
    ids: np.ndarray
    def check(self) -> None:
        raise ValueError(f"got {self.ids}")
"""
    assert list(_printed_whole(ast.parse(source))) == ["line 3: score", "line 7: self.ids"]


def test_no_error_prints_a_whole_array() -> None:
    folder = Path(errors.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {one}"
        for path in sorted(folder.rglob("*.py"))
        for one in _printed_whole(ast.parse(path.read_text("utf-8")))
    ]
    assert not found, f"print shorten(...) of them: {found}"
