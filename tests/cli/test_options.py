"""Options are declared once, and every command says of them what it did."""

import re

from typer.testing import CliRunner

from hvd_xai.cli.main import build


def test_an_option_reads_the_same_wherever_it_is_given() -> None:
    def said(command: str, option: str) -> str:
        text = CliRunner().invoke(build(), [command, "--help"]).stdout
        found = re.search(rf"^ +{option}\b.*\n(?: {{10,}}.*\n)*", text, re.MULTILINE)
        assert found is not None, text
        return " ".join(found[0].split())

    assert said("explain", "--custom-objects") == said("recompute", "--custom-objects")
    assert "Only for a file whose maker you trust" in said("explain", "--unsafe-models")
    assert said("explain", "--resume") == said("train", "--resume")
