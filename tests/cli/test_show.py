"""`hvd-xai show` as a user runs it."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvd_xai.checkpoint.reader import open_explanations
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.cli.main import main
from hvd_xai.views import pixels
from tests.runs_under_test import add_explanation, make_probe, make_run


class Shown:
    """Exit code and output of one call of the command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class Shell:
    """Runs `hvd-xai show` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Shown:
        self._monkeypatch.setattr("sys.argv", ["hvd-xai", "show", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        return Shown(int(ended.value.code or 0), said.out, said.err)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", make_probe())


def test_table_has_a_line_for_each_epoch_and_method(show: Shell, run: Path) -> None:
    shown = show(run)
    assert shown.code == 0
    header, *lines = [line.split() for line in shown.out.splitlines() if line.strip()]
    assert header[:4] == ["epoch", "method", "samples", "ranks"]
    assert [line[:2] for line in lines[:-1]] == [
        [str(e), m] for e in range(3) for m in ("integrated_gradients", "grad_cam")
    ]
    assert "100.0%" in lines[-2]


def test_table_takes_the_explanations_folder_too(show: Shell, run: Path) -> None:
    assert show(run / "explanations").code == 0


def test_table_fits_a_narrow_terminal(
    show: Shell, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    lines = show(run).out.splitlines()
    assert "integrated_gradients" in lines[1]
    assert "…" not in "".join(lines)


def test_json_holds_the_figures_of_the_checkpoints(show: Shell, run: Path) -> None:
    records = json.loads(show(run, "--json").out)["explanations"]
    assert len(records) == 6
    for record in records:
        explanation = open_explanations(run).explanation(record["epoch"], record["method"])
        right = explanation.column("prediction") == explanation.column("target")
        assert record["accuracy"] == pytest.approx(right.mean())
        assert (record["drift"] is None) == (record["epoch"] == 0)
        assert (record["convergence_delta"] is None) == (record["method"] == "grad_cam")
        assert (record["n_samples"], record["world_size"], record["nonfinite"]) == (12, 1, 0)
    assert records[4]["drift"]["changed_predictions"] == pytest.approx(4 / 12)


def test_json_has_no_nan(show: Shell, run: Path) -> None:
    probe = make_probe()
    broken = np.full(12, np.nan, np.float32)
    add_explanation(run / "explanations", probe, 3, "integrated_gradients", (8, 8, 1), score=broken)
    record = json.loads(show(run, "--json", "--epoch", 3).out, parse_constant=pytest.fail)[
        "explanations"
    ][0]
    assert record["score"] is None
    assert show(run).code == 0


def test_epoch_and_method_choose_lines(show: Shell, run: Path) -> None:
    records = json.loads(show(run, "--json", "--epoch", 1, "--method", "grad_cam").out)[
        "explanations"
    ]
    assert [(record["epoch"], record["method"]) for record in records] == [(1, "grad_cam")]


def test_a_changed_layer_is_not_compared(show: Shell, run: Path) -> None:
    add_explanation(run / "explanations", make_probe(), 3, "grad_cam", (2, 2))
    (record,) = json.loads(show(run, "--json", "--epoch", 3).out)["explanations"]
    assert record["drift"] is None


def test_samples_are_shown_in_numbers_at_the_newest_epoch(show: Shell, run: Path) -> None:
    records = json.loads(show(run, "--sample", "0-2", "--sample", "7,5", "--json").out)["samples"]
    assert [record["sample_id"] for record in records] == [0, 0, 1, 1, 2, 2, 7, 7, 5, 5]
    assert {record["epoch"] for record in records} == {2}
    explanation = open_explanations(run).explanation(2, "integrated_gradients")
    assert records[6]["sum"] == pytest.approx(float(explanation.attributions(7, 8).sum()), rel=1e-5)
    table = show(run, "--sample", "4").out
    assert "1 bee" in table
    assert "integrated_gradients" in table


def test_sample_ids_are_not_row_numbers(show: Shell, tmp_path: Path) -> None:
    run = make_run(tmp_path / "other", make_probe(first_id=1000), epochs=[0])
    record, _ = json.loads(show(run, "--sample", "1004", "--json").out)["samples"]
    assert record["target"] == 1
    assert "there are: 1000-1011" in show(run, "--sample", "4").err


def picture(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    assert image.format == "PNG"
    return image


def test_one_sample_becomes_a_strip(show: Shell, run: Path, tmp_path: Path) -> None:
    shown = show(run, "--sample", "7", "--epoch", "1", "--png", tmp_path / "out.png")
    assert (shown.code, shown.out.strip()) == (0, str(tmp_path / "out.png"))
    width, height = picture(tmp_path / "out.png").size
    assert width > 3 * 200
    assert height > 200


def test_many_samples_become_a_contact_sheet(show: Shell, run: Path, tmp_path: Path) -> None:
    show(run, "--sample", "0-11", "--png", tmp_path / "sheet.png")
    show(run, "--png", tmp_path / "first.png")
    assert picture(tmp_path / "sheet.png").size == picture(tmp_path / "first.png").size


def test_all_epochs_become_columns(show: Shell, run: Path, tmp_path: Path) -> None:
    show(run, "--sample", "7", "--epoch", "all", "--png", tmp_path / "all.png")
    show(run, "--sample", "7", "--png", tmp_path / "one.png")
    assert picture(tmp_path / "all.png").size[0] > picture(tmp_path / "one.png").size[0]


def test_the_scale_says_whether_the_method_has_a_sign(
    show: Shell, run: Path, tmp_path: Path
) -> None:
    probe = make_probe()
    add_explanation(run / "explanations", probe, 3, "squaregrad", (8, 8, 1))
    add_explanation(run / "explanations", probe, 3, "integrated_gradients", (8, 8, 1))
    ends = (
        pixels.sequential(np.zeros(1, np.float32), 1.0)[0],
        pixels.diverging(np.ones(1, np.float32), 1.0)[0],
    )
    for method, expected in (
        ("squaregrad", [True, False]),
        ("integrated_gradients", [False, True]),
    ):
        show(
            run, "--sample", "7", "--epoch", "3", "--method", method, "--png", tmp_path / "out.png"
        )
        drawn = np.asarray(picture(tmp_path / "out.png").convert("RGB"))
        assert [bool((drawn == end).all(axis=-1).any()) for end in ends] == expected


def test_very_many_epochs_are_drawn_evenly_spread_and_that_is_said(
    show: Shell, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", make_probe(3), epochs=range(14), cam=False)
    shown = show(run, "--sample", "1", "--epoch", "all", "--png", tmp_path / "all.png")
    assert "12 of 14 epochs" in shown.out
    assert picture(tmp_path / "all.png").size[0] < 14 * 194


@pytest.mark.parametrize("shape", [(13,), (20, 20, 3)])
def test_pictures_of_vectors_and_of_colour_images(
    show: Shell, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    run = make_run(tmp_path / "run", make_probe(shape=shape), epochs=[0], cam=len(shape) > 1)
    assert show(run, "--sample", "3", "--png", tmp_path / "out.png").code == 0
    assert len(picture(tmp_path / "out.png").convert("RGB").getcolors(1 << 20) or []) > 5


def test_pictures_do_without_a_stored_probe(show: Shell, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_probe(), epochs=[0], with_probe=False)
    assert show(run, "--sample", "3", "--png", tmp_path / "out.png").code == 0


def test_features_of_a_sample_are_told_by_name(show: Shell, tmp_path: Path) -> None:
    names = tuple(f"feature[{number}]" for number in range(13))
    probe = make_probe(shape=(13,), feature_names=names)
    run = make_run(tmp_path / "run", probe, epochs=[0], cam=False)
    attributions = (
        open_explanations(run).explanation(0, "integrated_gradients").attributions(3, 4)[0]
    )
    order = np.argsort(-np.abs(attributions), kind="stable")[:10]
    told = [line.split() for line in show(run, "--sample", "3").out.splitlines()[3:]]
    assert told[0] == ["feature", "value", "integrated_gradients"]
    assert told[1:-1] == [
        [names[place], f"{probe.inputs[3, place]:.4g}", f"{attributions[place]:+.3g}"]
        for place in order.tolist()
    ]
    assert told[-1] == ["3", "others", f"{np.delete(attributions, order).sum():+.3g}"]
    (record,) = json.loads(show(run, "--sample", "3", "--json").out)["samples"]
    assert list(record["features"].items()) == [
        (names[place], pytest.approx(float(attributions[place]))) for place in order.tolist()
    ]
    nameless = make_run(tmp_path / "nameless", make_probe(shape=(13,)), epochs=[0], cam=False)
    for arguments in (("--sample", "3"), ("--sample", "0-11")):
        assert (
            show(run, *arguments, "--png", tmp_path / "named.png").code
            == show(nameless, *arguments, "--png", tmp_path / "out.png").code
            == 0
        )
        assert picture(tmp_path / "named.png").tobytes() != picture(tmp_path / "out.png").tobytes()


def test_names_do_not_steer_the_terminal(show: Shell, tmp_path: Path) -> None:
    names = ("\x1b[2J", "größe\n", "[red]")
    probe = replace(
        make_probe(shape=(3,), feature_names=names), class_names=("\x9b2J", "bee\r", "\u202ecat")
    )
    shown = show(make_run(tmp_path / "run", probe, epochs=[0], cam=False), "--sample", "1")
    assert all(line.isprintable() for line in shown.out.splitlines())
    assert {"\\x1b[2J", "größe\\n", "[red]", "bee\\r"} <= set(shown.out.split())


def test_tokens_of_a_text_are_told_by_word_and_position(show: Shell, tmp_path: Path) -> None:
    words = ("", "[UNK]", "fine", "bad", "film")
    tokens = np.random.default_rng(1).integers(1, 5, (12, 20))
    tokens[:, 14:] = 0
    probe = replace(make_probe(), inputs=tokens, vocabulary=words)
    run = make_run(tmp_path / "run", probe, epochs=[0, 1])
    attributions = (
        open_explanations(run).explanation(1, "integrated_gradients").attributions(3, 4)[0]
    )
    order = np.argsort(-np.abs(attributions[:14]), kind="stable")[:10].tolist()
    told = [line.split() for line in show(run, "--sample", "3").out.splitlines()[4:]]
    assert told[0] == ["word", "position", "integrated_gradients"]
    assert told[1:-1] == [
        [words[tokens[3, place]], str(place), f"{attributions[place]:+.3g}"] for place in order
    ]
    assert told[-1] == ["10", "other", "tokens", f"{np.delete(attributions, order).sum():+.3g}"]
    records = json.loads(show(run, "--sample", "3", "--json").out)["samples"]
    assert [(one["word"], one["position"]) for one in records[0]["tokens"]] == [
        (words[tokens[3, place]], place) for place in order
    ]
    assert "tokens" not in records[1]  # of the coarser map
    wordless = make_run(tmp_path / "wordless", replace(probe, vocabulary=()), epochs=[0, 1])
    for arguments in (("--sample", "3"), ("--sample", "3", "--epoch", "all"), ("--sample", "0-11")):
        for folder in (run, wordless):
            shown = show(folder, *arguments, "--png", tmp_path / f"{folder.name}.png")
            assert shown.code == 0, shown.err
        assert (
            picture(tmp_path / "run.png").tobytes() != picture(tmp_path / "wordless.png").tobytes()
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "9"], "there is no epoch 9 in this run; there are: 0-2"),
        (
            ["--method", "lime"],
            "there is no method 'lime' in this run; there are: grad_cam, integrated_gradients",
        ),
        (["--sample", "99"], "there is no sample 99 in this run; there are: 0-11"),
        (["--sample", "x"], "ranges such as 0-31"),
        (["--sample", "3-1"], "ends where it begins or later"),
        (["--sample", "0-999999999"], "at most 500 samples"),
        (
            ["--sample", "1,2", "--epoch", "all", "--png", "x.png"],
            "give one --sample, or one --epoch",
        ),
        (
            ["--sample", "1", "--png", "no/such/folder/x.png"],
            "the folder 'no/such/folder' does not exist",
        ),
        (["--sample", "1", "--png", "x.png", "--json"], "cannot be given together"),
    ],
)
def test_wrong_wishes_are_one_clear_line(
    show: Shell, run: Path, arguments: list[str], said: str
) -> None:
    shown = show(run, *arguments)
    assert (shown.code, shown.out) == (1, "")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


def test_no_run_and_no_explanation_yet_are_told_apart(show: Shell, tmp_path: Path) -> None:
    assert "no run of hvd_xai" in show(tmp_path).err
    run = make_run(tmp_path / "run", make_probe(), epochs=[])
    assert "no explanation yet" in show(run).err


def test_what_it_says_to_look_at_can_be_typed(
    show: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "my réseau's run", make_probe(first_id=100))
    line = show(run).out.splitlines()[-1]
    said, _, command = line.partition(": ")
    assert said == "Look at one sample"
    shown = show(*shlex.split(command)[2:])
    assert shown.code == 0, shown.err
    assert (tmp_path / "out.png").exists()


def test_a_gap_stands_below_the_table_and_in_json(show: Shell, run: Path) -> None:
    RunDirectory(run, mode="resume").add_gaps({"grad_cam": [0, 5, 6]})
    assert "grad_cam has a gap: epoch 5-6 was due and never committed" in show(run).out
    assert json.loads(show(run, "--json").out)["gaps"] == {"grad_cam": [5, 6]}
