import math

import numpy as np

from hvd_xai.ranks.connect import Alone


def test_a_rank_that_is_alone_gets_back_what_it_sends() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert Alone().allgather("testing", b"\x00message") == [b"\x00message"]
    np.testing.assert_array_equal(Alone().gather("testing", rows, [3]), rows)
    np.testing.assert_array_equal(Alone().exchange("testing", rows, [3], [3]), rows)


def test_a_rank_that_is_alone_waits_for_nobody() -> None:
    watch = Alone().watch("testing")
    with watch:
        watch.look()
    assert math.isinf(watch._deadline)
