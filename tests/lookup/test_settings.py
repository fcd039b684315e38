from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from hvd_xai import baselines, scores
from hvd_xai.attributions.saliency import saliency
from hvd_xai.errors import RecipeError
from hvd_xai.lookup.settings import parse_settings
from hvd_xai.protocols import Attribution, Baseline, Score


def build(
    *,
    width: int = 8,
    rate: float = 0.1,
    name: str = "a",
    deep: bool = False,
    at: tuple[int, ...] = (1,),
) -> None: ...


def load(  # type: ignore[no-untyped-def]  # a default says the type of what has no annotation
    *,
    seed: int | None = None,
    pair: tuple[int, str] = (1, "a"),
    rule: Literal["midpoint", "left"] = "midpoint",
    untyped=(0.5,),
    where: Path = Path(),
    bare: tuple = (),  # type: ignore[type-arg]  # as people write it
    shape: dict[str, int] | None = None,
) -> None: ...


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width=16", 16),
        (" width = 16 ", 16),
        ("rate=1e-3", 1e-3),
        ("name=a=b", "a=b"),
        ("name=", ""),
        ("deep=yes", True),
        ("deep=False", False),
        ("at=1,2", (1, 2)),
        ("at=(1,)", (1,)),
        ("at=", ()),
        ("build.width=4", 4),
        ("seed=7", 7),
        ("seed=None", None),
        ("pair=3,b", (3, "b")),
        ("rule=left", "left"),
        ("untyped=1,2", (1.0, 2.0)),
        ("where=a/b", Path("a/b")),
        ("bare=1,x", (1, "x")),
        ("shape=none", None),
    ],
)
def test_a_setting_is_read_by_the_parameters_type(setting: str, value: object) -> None:
    parsed = parse_settings([setting], {"build": build, "load": load})
    [found] = [options for options in parsed.values() if options]
    assert list(found.values()) == [value]
    assert type(next(iter(found.values()))) is type(value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["widht=1"],
            (
                "there is no option 'widht' (did you mean 'width'?). What can be set: width=8"
                " (build), rate=0.1 (build)"
            ),
        ),
        (["width"], "not of the form name=value"),
        (["=3"], "not of the form name=value"),
        (["width=x"], "'width' expects a whole number; got 'x'"),
        (["width=1.5"], "a whole number"),
        (["rate=fast"], "a number"),
        (["deep=maybe"], "true or false"),
        (["at=1,x"], "values with commas between them, each a whole number"),
        (["pair=1"], "2 values with commas"),
        (["rule=right"], "one of midpoint, left"),
        (["seed=x"], "a whole number or none"),
        (["shape=a"], "cannot be written on the command line"),
        (["width=1", "build.width=2"], "'width' is set twice"),
    ],
)
def test_a_wrong_setting_is_an_error_that_says_what_is_right(
    settings: list[str], said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        parse_settings(settings, {"build": build, "load": load})
    assert said in str(error.value)


def test_the_ids_that_a_method_is_called_with_are_no_option() -> None:
    def method(*, ids: object, n_steps: int = 5) -> None:
        del ids, n_steps

    with pytest.raises(
        RecipeError, match=r"there is no option 'ids'\. What can be set: n_steps=5 \(method\)\."
    ):
        parse_settings(["ids=1"], {"method": method})


def test_an_option_of_two_functions_must_be_said_in_full() -> None:
    functions = {"one.build": build, "two.build": build}
    with pytest.raises(RecipeError, match=r"write one\.build\.width=3 or two\.build\.width=3"):
        parse_settings(["width=3"], functions)
    assert parse_settings(["two.build.width=3"], functions) == {
        "one.build": {},
        "two.build": {"width": 3},
    }


def test_the_options_of_a_partial_are_known() -> None:
    assert parse_settings(["width=3"], {"build": partial(build, rate=0.5)}) == {
        "build": {"width": 3}
    }


def method(*, score: str | Score = "output", baseline: str | Baseline = "zero") -> None: ...


def around(*, method: str | Attribution = saliency, n_samples: int = 3) -> None: ...


def test_options_of_a_score_and_a_baseline_are_set_where_the_function_is_not_named() -> None:
    found = parse_settings(
        ["score.head=0", "baseline=blurred", "baseline.sigma=4"], {"method": method}
    )["method"]
    assert set(found) == {"baseline", "score"}
    assert _described(found["score"]) == (scores.output, {"head": 0})
    assert _described(found["baseline"]) == (baselines.blurred, {"sigma": 4.0})


def test_an_option_of_a_named_score_may_stand_before_the_name() -> None:
    functions = {"one": method, "two": method}
    found = parse_settings(
        ["two.score.activation=sigmoid", "two.score=probability", "two.score.head=second"],
        functions,
    )
    assert found["one"] == {}
    assert _described(found["two"]["score"]) == (
        scores.probability,
        {"activation": "sigmoid", "head": "second"},
    )
    with pytest.raises(RecipeError, match=r"write one\.score\.head=0 or two\.score\.head=0"):
        parse_settings(["score.head=0"], functions)


def test_options_are_reached_through_a_method_within_a_method() -> None:
    found = parse_settings(["method.score.head=1", "n_samples=2"], {"around": around})["around"]
    function, options = _described(found["method"])
    assert function is saliency
    assert _described(options["score"]) == (scores.output, {"head": 1})
    assert found["n_samples"] == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["head=0"], "no option 'head' (did you mean 'score.head'?)"),
        (["score.haed=0"], "no option 'score.haed' (did you mean 'score.head'?)"),
        (["score.activation=sigmoid"], "no option 'score.activation'"),
        (["score.at=1"], "no option 'score.at'"),
        (["baseline=uniform", "baseline.ids=1"], "no option 'baseline.ids'"),
        (["baseline=blurred", "baseline.sigma=wide"], "'baseline.sigma' expects a number"),
        (["score.head=0", "score.head=1"], "'score.head' is set twice"),
        (["score=logits"], "'--set method.score=logits': unknown score 'logits'; pass score= one"),
    ],
)
def test_a_wrong_inner_setting_is_an_error_that_says_what_is_right(
    settings: list[str], said: str
) -> None:
    with pytest.raises(RecipeError) as error:
        parse_settings(settings, {"method": method})
    assert said in str(error.value)


def test_a_score_of_ones_own_comes_from_a_file_with_its_options(tmp_path: Path) -> None:
    path = tmp_path / "margin.py"
    path.write_text("def margin(outputs, targets, *, scale: float = 1.0): return outputs\n")
    found = parse_settings([f"score={path}", "score.scale=2"], {"method": method})["method"]
    function, options = _described(found["score"])
    assert (function.__name__, options) == ("margin", {"scale": 2.0})
    alone = parse_settings([f"score={path}"], {"method": method})["method"]["score"]
    assert alone is function
    with pytest.raises(RecipeError, match=r"score '.*absent\.py' does not exist"):
        parse_settings([f"score={path.with_name('absent.py')}"], {"method": method})


def _described(bound: Any) -> tuple[Any, dict[str, Any]]:
    assert isinstance(bound, partial)
    return bound.func, dict(bound.keywords)
