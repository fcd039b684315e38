"""Resolves methods, which users give by name or as functions, into records."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hvd_xai import scores
from hvd_xai.checkpoint.manifest import check_name
from hvd_xai.lookup.describe import describe, digest_sources
from hvd_xai.lookup.methods import load_method
from hvd_xai.protocols import Attribution, Json, Methods, Score


@dataclass(frozen=True, slots=True)
class Method:
    """An attribution method, with all facts about it that need no model.

    Attributes:
        name: name that the explanations are committed under.
        function: name of the function.
        bound: function with its options bound.
        options: options in the form in which they are recorded, defaults included.
        score: score that is explained, by name or as a function; None for a method without a score.
        sources: digests of the files outside hvd_xai that define the method, by file.

    Example:
        >>> (method,) = resolve({"steep": "saliency"})
        >>> method.name, method.function, method.score
        ('steep', 'saliency', 'output')
    """

    name: str
    function: str
    bound: Attribution
    options: Mapping[str, Json]
    score: str | Score | None
    sources: Mapping[str, str]

    @property
    def recorded_score(self) -> str | Score:
        """The score whose values stand beside the attributions: the output where it has none."""
        return "output" if self.score is None else self.score

    @property
    def reads_targets(self) -> bool:
        """Whether attributions may depend on the targets; a user's own functions are taken to."""
        return scores.reads_targets(self.recorded_score)

    @property
    def forms_micro_batches(self) -> bool:
        """Whether the method takes all rows at once and cuts them into micro-batches by itself."""
        return "micro_batch" in inspect.signature(self.bound).parameters

    def with_micro_batch(self, micro_batch: int) -> "Method":
        """Returns the method with its micro-batch bound, where it has that option unbound."""
        if not self.forms_micro_batches or "micro_batch" in getattr(self.bound, "keywords", {}):
            return self
        # The protocol does not know a method's own options.
        function: Callable[..., Any] = self.bound
        return replace(
            self,
            bound=partial(function, micro_batch=micro_batch),
            options={**self.options, "micro_batch": micro_batch},
        )

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Adds the method's name to errors of a block, because a job may run many methods."""
        try:
            yield
        except (TypeError, ValueError) as error:
            # subclasses may take other arguments than a message, and say more by themselves
            if type(error) not in (TypeError, ValueError) or self.name in str(error):
                raise
            raise type(error)(f"method '{self.name}': {error}") from error


def resolve(methods: Methods) -> tuple[Method, ...]:
    """Resolves methods, given as names or as functions with bound options, into records.

    Args:
        methods: names and functions, each committed under its own name; or a mapping from names to
            commit under, in which one function may appear several times.

    Returns:
        One record for each method, in the order given.

    Raises:
        RecipeError: if no method has a given name.
        TypeError: if a function does not take the options that are bound to it.
        ValueError: if no method is given, two methods share a name, or a name cannot be the name of
            a folder.

    Example:
        >>> from hvd_xai.attributions.saliency import saliency
        >>> [method.name for method in resolve(["grad_cam", partial(saliency, score="logit")])]
        ['grad_cam', 'saliency']
    """
    if not methods:
        raise ValueError(
            "no method was given to explain with; pass e.g. methods=[integrated_gradients]"
        )
    if isinstance(methods, Mapping):
        resolved = [resolve_one(method, name) for name, method in methods.items()]
    else:
        # a single name is a sequence of letters
        given = (methods,) if isinstance(methods, str) else methods
        resolved = [resolve_one(method) for method in given]
    names = [method.name for method in resolved]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"each method is committed under its name, and '{name}' is given"
                f" {names.count(name)} times. Pass a mapping that names each, such as"
                f" methods={{'one': partial({name}, ...), 'other': partial({name}, ...)}}."
            )
    return tuple(resolved)


def resolve_one(method: Attribution | str, name: str = "") -> Method:
    """Resolves a method that is committed under `name`, or under its own name by default.

    Raises:
        RecipeError: if no method has a given name.
        TypeError: if the function does not take the options that are bound to it.
        ValueError: if the name cannot be the name of a folder, or there is no such score.
    """
    function = load_method(method) if isinstance(method, str) else method
    its_name, options = describe(function)
    check_name(name or its_name)
    try:
        inspect.signature(function)
    except ValueError as error:
        raise TypeError(f"the method's bound options do not fit it: {error}") from error
    score = _find_score(function)
    resolved = Method(
        name or its_name, its_name, function, options, score, digest_sources(function)
    )
    with resolved.named_in_errors():
        scores.resolve(resolved.recorded_score)
    return resolved


def bind_score(method: Callable[..., Any], score: Score) -> Callable[..., Any]:
    """Returns the method with another score, bound in the innermost method of a transform."""
    options = inspect.signature(method).parameters
    if "score" in options:
        return partial(method, score=score)
    return partial(method, method=bind_score(_load_inner(options["method"].default), score))


def _find_score(method: Callable[..., Any]) -> str | Score | None:
    """Returns the score that a method, or the method that it transforms, explains."""
    options = inspect.signature(method).parameters
    if "score" in options:
        score: str | Score = options["score"].default
        return score
    return _find_score(_load_inner(options["method"].default)) if "method" in options else None


def _load_inner(method: str | Attribution) -> Attribution:
    return load_method(method) if isinstance(method, str) else method
