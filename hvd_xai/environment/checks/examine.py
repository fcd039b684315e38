"""Finds the checks and runs them one after the other."""

from collections.abc import Callable, Iterator
from inspect import isfunction
from types import ModuleType
from typing import TypeAlias

from hvd_xai.environment.checks import host, installed, launches, ranks
from hvd_xai.environment.checks.check import Check, Machine
from hvd_xai.protocols import Progress

CheckFunction: TypeAlias = Callable[[Machine], Check | None]
"""A check: returns what was found, or None where there is nothing to look at."""

_MODULES: tuple[ModuleType, ...] = (installed, host, ranks, launches)


def find_checks(*, quick: bool = False) -> list[CheckFunction]:
    """Finds the checks: every public function that is defined in a module of this package.

    They come in the order in which people read the table: from what is installed to what it does.

    Args:
        quick: whether to leave out those that launch ranks.

    Example:
        >>> [check.__name__ for check in find_checks()][:3]
        ['python', 'tensorflow', 'keras']
    """
    modules = [module for module in _MODULES if not (quick and module is launches)]
    # A module's dictionary has its functions in the order of definition, and those that the module
    # imports as well: they are told by the module that defined them.
    return [
        function
        for module in modules
        for name, function in vars(module).items()
        if isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    ]


def examine(*, quick: bool, progress: Progress) -> Iterator[Check]:
    """Runs the checks and yields what each found; those with nothing to look at yield nothing.

    Args:
        quick: whether to leave out the checks that launch ranks.
        progress: where to show how far the examination is.
    """
    checks = find_checks(quick=quick)
    progress.start("Looking", len(checks))
    machine = Machine()
    for check in checks:
        found = check(machine)
        if found is not None:
            yield found
        progress.advance()
