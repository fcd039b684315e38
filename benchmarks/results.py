"""Keeps results in RESULTS.md: a section for each benchmark, with the command that makes it."""

import os
import platform
from datetime import date
from pathlib import Path


def machine() -> str:
    """Returns what the figures were taken on, and how busy it was."""
    models = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = os.getloadavg()[0]
    return (
        f"{len(models)} cores of {models[0] if models else platform.processor()}, load {load:.1f},"
        f" {date.today().isoformat()}."
    )


def write_section(path: Path, title: str, command: str, text: str) -> None:
    """Puts a section into a Markdown file, in the place of the one of that title."""
    head, *sections = (path.read_text() if path.exists() else "# Results\n").split("\n## ")
    kept = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    kept[title] = f"\n    {command}\n\n{text}\n"
    path.write_text(
        "\n## ".join(
            [
                head.rstrip("\n") + "\n",
                *(f"{name}\n{body.strip(chr(10))}\n" for name, body in sorted(kept.items())),
            ]
        )
    )
