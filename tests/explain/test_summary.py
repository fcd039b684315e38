import time

from hvd_xai.explain.summary import Summary


def test_the_seconds_of_a_stage_add_up_even_if_it_fails() -> None:
    summary = Summary()
    for _ in range(2):
        try:
            with summary.timed("writing"):
                time.sleep(0.01)
                raise OSError
        except OSError:
            pass
    assert summary.seconds["writing"] >= 0.02
    assert summary.seconds["merging"] == 0.0
