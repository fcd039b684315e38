import os
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from tests.processes import GivenUpError, Limits, Running, run

PYTHON = [sys.executable, "-S", "-c"]
SPINS = "while True: pass"


def test_a_process_that_ends_is_told_of_by_code_and_streams() -> None:
    ended = run([*PYTHON, "import sys; print('out'); sys.stderr.write('err'); sys.exit(3)"])
    assert (ended.code, ended.stdout, ended.stderr) == (3, "out\n", "err")
    assert sorted(ended.output) == sorted("out\nerr")


def test_a_process_that_sleeps_is_given_up_with_what_it_said() -> None:
    program = "import time; print('begun', flush=True); time.sleep(1000)"
    began = time.monotonic()
    with pytest.raises(GivenUpError, match=r"(?s)idle seconds of at most 2:\nbegun"):
        run([*PYTHON, program], limits=Limits(idle=2))
    assert time.monotonic() - began < 1000


def test_a_process_that_wakes_and_sleeps_for_ever_is_given_up() -> None:
    program = "import time\nwhile True: time.sleep(0.001)"
    with pytest.raises(GivenUpError, match="idle seconds"):
        run([*PYTHON, program], limits=Limits(idle=2))


def test_a_process_that_spins_is_given_up_by_its_cpu_time_that_of_its_children_included() -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', '{SPINS}'])"
    with (
        pytest.raises(GivenUpError, match="CPU seconds of at most 1"),
        Running([*PYTHON, program], limits=Limits(cpu=1)) as running,
    ):
        running.end()
    assert not psutil.pid_exists(running.process.pid)


def test_a_process_that_talks_may_be_idle() -> None:
    program = "import time\nfor _ in range(12): print(flush=True); time.sleep(0.25)"
    ended = run([*PYTHON, program], limits=Limits(idle=1.5))
    assert ended.code == 0
    assert ended.seconds > 1.5


def test_a_starved_process_is_waited_for() -> None:
    core = min(os.sched_getaffinity(0))
    pinned = f"import os; os.sched_setaffinity(0, {{{core}}})\n"
    # each in a session of its own: some kernels share the cores among sessions before they look at
    # nice
    spinning = [
        subprocess.Popen([*PYTHON, pinned + SPINS], start_new_session=True) for _ in range(8)
    ]
    try:
        # a share of a ninth of the core where sessions share it, else of a twenty-fifth
        program = f"{pinned}os.nice(5)\nimport time\nwhile time.process_time() < 0.4: pass"
        ended = run([*PYTHON, program], limits=Limits(idle=2, cpu=20))
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert ended.code == 0
    assert ended.seconds > 2, "it was not starved: the test shows nothing"


def test_nothing_outlives_the_block_not_even_in_a_session_of_its_own() -> None:
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(1000)'],"
        " start_new_session=True)\n"
        "print(child.pid, flush=True); time.sleep(1000)"
    )
    with Running([*PYTHON, program]) as running:
        assert running.until(lambda: "\n" in running.output)
        running.family.look()
        child = psutil.Process(int(running.output))
    # it is dying; whoever inherited it may never ask how it ended
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_waiting_for_a_word_ends_with_the_process() -> None:
    with Running([*PYTHON, "print('one')"]) as running:
        assert not running.until(lambda: "two" in running.output)
        assert running.end().stdout == "one\n"


def test_a_pipe_that_an_orphan_holds_is_not_waited_for_and_the_orphan_is_ended() -> None:
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(1000)'],"
        " start_new_session=True)\n"
        "print(child.pid, flush=True)"
    )
    with pytest.raises(GivenUpError, match="idle seconds of at most 1") as caught:
        run([*PYTHON, program], limits=Limits(idle=1))
    with suppress(psutil.NoSuchProcess):
        orphan = psutil.Process(int(str(caught.value).split()[-1]))
        while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
