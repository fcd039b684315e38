"""Takes away from this thread what only root may do, so that permissions count in tests too."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# of <linux/capability.h>: reading, writing and searching whatever the permissions say
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


@contextmanager
def without_root_powers() -> Iterator[None]:
    """Runs the block as a user whom permissions bind; files still belong to them."""
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # 0: this thread
    # effective, permitted and inheritable capabilities, their lower and then their upper half
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(head, sets) != 0:
        pytest.fail(f"capget: {os.strerror(ctypes.get_errno())}")
    before = sets[0]
    sets[0] = before & ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    if libc.capset(head, sets) != 0:
        pytest.fail(f"capset: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        sets[0] = before
        libc.capset(head, sets)
