import numpy as np
import pytest

from hvd_xai.primitives import quadrature

N_NODES = [1, 2, 3, 50, 257, 1000]
# The sum of up to 1,000 weights in float64: 1,000 roundings of 1e-16.
SUM_TOLERANCE = 1e-12


@pytest.mark.parametrize("rule", ["midpoint", "gauss_legendre"])
@pytest.mark.parametrize("n_nodes", N_NODES)
def test_weights_sum_to_one_and_nodes_lie_inside(rule: str, n_nodes: int) -> None:
    nodes, weights = quadrature.resolve(rule)(n_nodes)
    assert nodes.shape == weights.shape == (n_nodes,)
    assert abs(weights.sum() - 1.0) < SUM_TOLERANCE
    assert np.all((nodes > 0) & (nodes < 1))
    assert np.all(np.diff(nodes) > 0)


@pytest.mark.parametrize("n_nodes", [1, 2, 5])
def test_gauss_legendre_is_exact_up_to_its_degree(n_nodes: int) -> None:
    nodes, weights = quadrature.gauss_legendre(n_nodes)
    for degree in range(2 * n_nodes):
        assert abs(np.sum(weights * nodes**degree) - 1 / (degree + 1)) < SUM_TOLERANCE


def test_midpoint_is_exact_for_lines() -> None:
    nodes, weights = quadrature.midpoint(7)
    assert abs(np.sum(weights * (3 * nodes + 1)) - 2.5) < SUM_TOLERANCE


def test_refining_a_midpoint_rule_in_three_keeps_its_nodes() -> None:
    nodes = np.empty(0)
    for level in (0, 1, 2, 3, 4, 5):
        new = quadrature.nested_midpoint(level)
        nodes = np.sort(np.append(nodes, new))
        want, weights = quadrature.midpoint(3**level)
        np.testing.assert_allclose(nodes, want, rtol=1e-14)
        assert np.allclose(weights, 3.0**-level)
        assert abs(weights.sum() - 1) < SUM_TOLERANCE


def test_unknown_rule_names_those_there_are() -> None:
    with pytest.raises(
        ValueError,
        match="unknown quadrature rule 'trapezoid'; pass rule= one of 'midpoint', 'gauss_legendre'",
    ):
        quadrature.resolve("trapezoid")
