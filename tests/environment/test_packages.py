from hvd_xai.environment.packages import find_distribution


def test_the_first_that_is_installed_is_found() -> None:
    found = find_distribution("no-such-package", "numpy", "rich")
    assert found is not None
    assert found.name == "numpy"


def test_nothing_is_found_where_nothing_is_installed() -> None:
    assert find_distribution("no-such-package") is None
