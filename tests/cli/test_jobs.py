import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hvd_xai.checkpoint.run_directory import open_run
from hvd_xai.cli.jobs import closing, costs, run_mode
from hvd_xai.cli.main import build
from hvd_xai.explain.estimate import Estimate
from tests.runs_under_test import make_probe, make_run


def _commands(said: str) -> list[list[str]]:
    return [shlex.split(line) for line in said.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("n_samples", [1, 40])
def test_what_it_says_at_the_end_can_be_typed(
    n_samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("my réseau's run"), make_probe(n_samples, first_id=100), epochs=(0, 3))
    (run / "tensorboard").mkdir()
    *shows, tensorboard = _commands("\n".join(closing(run)))
    assert len(shows) == 2
    for words in shows:
        done = CliRunner().invoke(build(), words[1:])
        assert done.exit_code == 0, done.output
    assert shows[1][shows[1].index("--epoch") + 1] == "3"
    assert (tmp_path / "out.png").exists()
    assert tensorboard[1:] == ["--logdir", str(run)]


def test_it_names_nothing_to_look_at_where_nothing_was_explained(tmp_path: Path) -> None:
    open_run(tmp_path / "run", config={})
    assert not _commands("\n".join(closing(tmp_path / "run")))


def test_costs_are_a_table_with_their_sum() -> None:
    estimates = [
        Estimate("grad_cam", 256, 0.031, 65536),
        Estimate("integrated_gradients", 256, 12.25, 2_097_152),
    ]
    _, heading, *lines, _ = costs(estimates)
    assert heading.split() == ["each", "explained", "epoch", "rows", "seconds", "bytes"]
    assert [line.split() for line in lines] == [
        ["grad_cam", "256", "0.031", "65,536"],
        ["integrated_gradients", "256", "12", "2,097,152"],
        ["together", "512", "12", "2,162,688"],
    ]
    assert len(costs(estimates[:1])) == 4
    assert costs([]) == ["nothing will be explained: no callback does"]


def test_two_flags_say_what_to_do_with_a_run() -> None:
    assert run_mode(resume=False, overwrite=False) == "new"
    assert run_mode(resume=True, overwrite=False) == "resume"
    assert run_mode(resume=False, overwrite=True) == "overwrite"
    with pytest.raises(typer.BadParameter, match="not both"):
        run_mode(resume=True, overwrite=True)
