from hvd_xai.environment.checks import launches
from hvd_xai.environment.checks.examine import find_checks


def test_every_public_function_of_a_module_is_a_check_and_nothing_else_is() -> None:
    names = [check.__name__ for check in find_checks()]
    assert names[0] == "python"
    assert {"one_mpi", "leftovers", "two_ranks_over_gloo"} <= set(names)
    assert not {"Check", "run", "find_program"} & set(names)  # these are imported
    assert len(names) == len(set(names))


def test_quick_leaves_out_the_launches_alone() -> None:
    left_out = set(find_checks()) - set(find_checks(quick=True))
    assert left_out == {launches.two_ranks_over_mpi, launches.two_ranks_over_gloo}
