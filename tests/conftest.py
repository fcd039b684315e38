"""Sets up every test: the library's arguments are checked, and a launched session without tests
fails.

With `pytest -n 2 --dist loadfile` two processes share the files.
"""

import os
import tempfile
from collections.abc import Generator

import pytest

# Before anything imports TensorFlow, Keras or MPI.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN has the convolutions with channels first that TensorFlow's own kernels lack on a CPU; left
# to itself TensorFlow turns it on only where the processor has instructions for neural networks.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if "KERAS_HOME" not in os.environ:  # Keras writes keras.json when it is imported
    _keras_home = tempfile.TemporaryDirectory(prefix="keras_home-")
    os.environ["KERAS_HOME"] = _keras_home.name
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # the processes share the cores
if os.getuid() == 0:
    # Open MPI refuses to launch as root unless both are set.
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")

from jaxtyping import install_import_hook

install_import_hook("hvd_xai", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs tests that start ranks first: they take longest, and other tests fill the idle cores."""
    items.sort(key=lambda item: item.get_closest_marker("launched") is None)


_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a session that a launcher started and in which no test ran.

    A typing error in a test's name must not look green.
    """
    launched = any(variable in os.environ for variable in _LAUNCHED)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    ran = (
        sum(
            len(reporter.stats.get(outcome, []))
            for outcome in ("passed", "failed", "error", "xfailed", "xpassed")
        )
        if reporter
        else 0
    )
    if launched and ran == 0 and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Generator[None, None, None]:
    """Takes back what a test changed in the environment."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
