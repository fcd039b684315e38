"""Finds installed Python packages by the name of their distribution, without importing them."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution

TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-gpu",
    "tensorflow-rocm",
    "intel-tensorflow",
    "tf-nightly",
)
"""Distributions that bring the package `tensorflow`."""


def find_distribution(*names: str) -> Distribution | None:
    """Returns the first of several distributions that is installed, None if none is.

    Args:
        names: names as the package index spells them, in order of preference.

    Example:
        >>> found = find_distribution("no-such-package", "numpy")
        >>> found.name
        'numpy'
    """
    for name in names:
        try:
            return distribution(name)
        except PackageNotFoundError:
            continue
    return None
