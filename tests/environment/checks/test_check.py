from pathlib import Path

from hvd_xai.environment.checks.check import Machine


def test_a_program_is_asked_once(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/log\necho tool 1.2\n")
    program.chmod(0o755)
    machine = Machine()
    assert machine.ask_version(program) == machine.ask_version(program)
    assert machine.ask_version(program).stdout == "tool 1.2\n"
    assert (tmp_path / "log").read_text() == "asked\n"
