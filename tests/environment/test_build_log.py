import pytest

from hvd_xai.environment.build_log import advice, first_error


@pytest.mark.parametrize(
    ("log", "error", "what_to_do"),
    [
        (
            "x\n  a.cc:1:2: error: expected ';'\nb.cc: error: y\n",
            "a.cc:1:2: error: expected ';'.",
            "",
        ),
        (
            "CMake Error at CMakeLists.txt:5 (message):\n\n  Could NOT find MPI\n",
            "Could NOT find MPI",
            "libopenmpi-dev",
        ),
        (
            (
                "CMake Error at CMakeTestCXXCompiler.cmake:71 (message):\n  The C++ compiler\n "
                " x.cc: fatal error: a.h: gone\n"
            ),
            "a.h: gone",
            "",
        ),
        (
            (
                "CMake Error at x.txt:1 (cmake_minimum_required):\n  CMake 3.13 or higher is"
                " required.\n"
            ),
            "3.13 or higher",
            "newer cmake",
        ),
        (
            "g++: fatal error: Killed signal terminated program cc1plus\n",
            "Killed signal",
            "--jobs 1",
        ),
        (
            "error: subprocess-exited-with-error\n/usr/bin/ld: x: undefined reference to `y'\n",
            "undefined reference",
            "",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement\n",
            "Could not find a version",
            "network",
        ),
        ("c++: error: unrecognized command-line option '-std=c++17'\n", "-std=c++17", "g++ 9"),
        ("all is well\nthen it ended\n\n", "then it ended.", ""),
        ("", "it said nothing", ""),
    ],
)
def test_the_first_error_is_found_and_answered(log: str, error: str, what_to_do: str) -> None:
    assert error in first_error(log)
    assert what_to_do in advice(log)
    assert bool(advice(log)) == bool(what_to_do)
