import sys

import pytest
from typer.testing import CliRunner

from hvd_xai.cli.main import build
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.methods import shipped_methods
from tests import processes


def methods(*words: str) -> str:
    done = CliRunner().invoke(build(), ["methods", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_every_method_is_listed_with_what_it_does() -> None:
    listed = [line.split(maxsplit=1) for line in methods().splitlines() if not line.startswith(" ")]
    assert [words[0] for words in listed] == shipped_methods()
    assert all(len(words) == 2 for words in listed)


@pytest.mark.parametrize("name", shipped_methods())
def test_a_method_tells_all_about_itself(name: str) -> None:
    told = methods(name)
    for part in (name, "Args:", "Returns:", "Reference:", "Options and defaults:"):
        assert part in told
    assert "ids =" not in told


def test_a_method_that_is_not_there_is_an_error_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'grad_cam'"):
        methods("gradcam")


def test_it_needs_no_tensorflow() -> None:
    code = (
        "import sys; from hvd_xai.cli.methods import methods; methods(); methods('saliency');"
        " assert 'tensorflow' not in sys.modules"
    )
    done = processes.run([sys.executable, "-c", code])
    assert done.code == 0, done.stderr
