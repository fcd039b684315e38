"""Quadrature rules: weighted sums over a few points that stand for an integral over a path.

Every rule here is open: it never evaluates the ends of the path. At the baseline itself, a network
of rectifiers whose biases are zero has no gradient, and a rule that looks there loses that node's
share (1 % of the attributions at 50 nodes).
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

Rule: TypeAlias = Callable[[int], tuple[Float64[np.ndarray, "s"], Float64[np.ndarray, "s"]]]


def midpoint(n_nodes: int) -> tuple[Float64[np.ndarray, "s"], Float64[np.ndarray, "s"]]:
    """Returns the middles of `n_nodes` equal parts of (0, 1), all of the same weight.

    The rule to start with: where gradients jump along the path, as with rectifiers and max-pooling,
    no rule of as many nodes does better.

    Args:
        n_nodes: number of nodes, at least 1.

    Returns:
        Nodes and weights, `[s]` each; the weights sum to 1.
    """
    return (np.arange(n_nodes) + 0.5) / n_nodes, np.full(n_nodes, 1.0 / n_nodes)


def nested_midpoint(level: int) -> Float64[np.ndarray, "s"]:
    """Returns the nodes that a midpoint rule adds to the rule with a third as many nodes.

    Cutting each part of a midpoint rule in three keeps its nodes, so that a rule is refined by
    adding nodes and none is computed twice.

        level 0        .        o        .
        level 1    o       (level 0)     o        and so on in each third

    Args:
        level: number of times that the parts were cut, at least 0, where the middle alone is the
            rule.

    Returns:
        Nodes, `[1]` at level 0, `[2 * 3 ** (level - 1)]` above. Each has the weight `3 ** -level`,
        as the earlier ones then have.
    """
    nodes, _ = midpoint(3**level)
    # Each third node, from the second on, is one of the rule before.
    return nodes if level == 0 else np.delete(nodes, np.s_[1::3])


def gauss_legendre(n_nodes: int) -> tuple[Float64[np.ndarray, "s"], Float64[np.ndarray, "s"]]:
    """Returns the Gauss-Legendre nodes on (0, 1), exact for polynomials up to degree 2 n - 1.

    Worth it where the score is smooth along the path (gelu, tanh, no max-pooling): a handful of
    nodes then does the work of 50.

    Args:
        n_nodes: number of nodes, at least 1.

    Returns:
        Nodes and weights, `[s]` each; the weights sum to 1.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return (nodes + 1.0) / 2.0, weights / weights.sum()


_RULES: dict[str, Rule] = {"midpoint": midpoint, "gauss_legendre": gauss_legendre}


def resolve(rule: str) -> Rule:
    """Returns the rule of that name.

    Raises:
        ValueError: if there is none.
    """
    if rule not in _RULES:
        raise ValueError(
            f"unknown quadrature rule {rule!r}; pass rule= one of {', '.join(map(repr, _RULES))}"
        )
    return _RULES[rule]
