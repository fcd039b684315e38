"""Commands and lines that the sources tell people to type work as they stand there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "setup.py")),
    *(
        path
        for folder in ("hvd_xai", "models", "callbacks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]


def _told(pattern: str) -> list[tuple[Path, str]]:
    # a line that ends in a backslash goes on
    texts = ((path, path.read_text("utf-8").replace("\\\n", " ")) for path in SOURCES)
    return [
        (path.relative_to(ROOT), match)
        for path, text in texts
        for match in re.findall(pattern, text)
    ]


def _extras() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS"
    ]
    assert isinstance(values[0], ast.Dict)
    return {str(ast.literal_eval(key)) for key in values[0].keys if key is not None}


def test_extras_that_are_named_exist() -> None:
    told = _told(r"hvd[-_]xai\[([\w,]+)\]")
    assert len(told) > 5
    assert not [
        (str(path), names) for path, names in told if not set(names.split(",")) <= _extras()
    ]


@pytest.mark.parametrize(
    "words", _told(r"horovodrun (?:--gloo )?-np.*"), ids=lambda told: str(told[0])
)
def test_horovodrun_starts_as_told(words: tuple[Path, str]) -> None:
    # Open MPI 5 refuses the arguments that Horovod 0.28 writes itself; an elastic job needs no MPI
    assert any(
        option in words[1] for option in ("--gloo", "--host-discovery-script", "--binding-args=")
    )
