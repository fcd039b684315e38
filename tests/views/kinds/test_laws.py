"""Laws that every kind of data keeps: it is found by its module, and draws whatever it is given."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_xai.probe.facts import ProbeFacts
from hvd_xai.views import kinds, pixels
from hvd_xai.views.kind import Arrangement, Fit, Kind, Strongest, find_kind, kind_names, load_kind
from hvd_xai.views.samples import Panel, Sample

SIZES = (40, 104, 200)


def make_facts() -> list[ProbeFacts]:
    """Returns facts of data of all sorts, with and without names."""
    shapes = [(), (1,), (5,), (300,), (40, 3), (28, 28), (1, 1, 1), (8, 8, 1), (20, 24, 3)]
    shapes += [(3, 20, 24), (8, 8, 7), (12, 16, 20), (2, 7, 8, 1), (9, 10, 11, 2)]
    found = [ProbeFacts(shape, np.dtype(np.float32)) for shape in shapes]
    names = tuple(f"feature {place}" for place in range(5))
    found.append(ProbeFacts((5,), np.dtype(np.float32), names))
    found.append(ProbeFacts((30,), np.dtype(np.int32), vocabulary=("", "[UNK]", "élève", "film")))
    return found


def kinds_own_facts() -> list[ProbeFacts]:
    """Returns the data that the kinds' own tests name in `FACTS`: a new kind brings its own."""
    modules = [importlib.import_module(f"tests.views.kinds.test_{name}") for name in kind_names()]
    return [facts for module in modules for facts in getattr(module, "FACTS", [])]


FACTS = [*make_facts(), *kinds_own_facts()]
WITH_KIND = [
    (name, facts)
    for name in kind_names()
    for facts in FACTS
    if load_kind(name).fits(facts) != Fit.NONE
]


def make_sample(facts: ProbeFacts, *, n_epochs: int = 1, inputs: bool = True) -> Sample:
    """Returns a sample with attributions of its inputs, of places, and of units."""
    generator = np.random.default_rng(0)
    values = (
        generator.integers(0, len(facts.vocabulary), facts.shape)
        if facts.vocabulary
        else generator.random(facts.shape)
    )
    coarse = tuple(max(1, length // 2) for length in facts.shape[:3])
    panels = []
    for epoch in range(n_epochs):
        of_inputs = np.asarray(generator.normal(size=facts.shape), np.float32)
        of_places = np.asarray(generator.random(coarse), np.float32)
        panels += [
            Panel("saliency", epoch, of_inputs, 1, 0.9, attributed_to="inputs", is_signed=True),
            Panel("cam", epoch, of_places, 1, 0.9, attributed_to="places", is_signed=False),
            Panel("units", epoch, np.ones(4, np.float32), 1, 0.9, attributed_to="units"),
        ]
    return Sample(7, 1, 1, tuple(panels), np.asarray(values) if inputs else None, facts)


@pytest.mark.parametrize("name", kind_names())
def test_every_kind_fits_some_data_best(name: str) -> None:
    assert isinstance(load_kind(name), Kind)
    assert any(find_kind(facts) is load_kind(name) for facts in FACTS)


@pytest.mark.parametrize("facts", FACTS, ids=str)
def test_no_two_kinds_fit_data_equally_well(facts: ProbeFacts) -> None:
    best = sorted(load_kind(name).fits(facts) for name in kind_names())
    assert best[-1] > best[-2]
    assert best[-1] > Fit.NONE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize(("name", "facts"), WITH_KIND, ids=str)
def test_every_panel_is_drawn_at_every_size(
    name: str, facts: ProbeFacts, size: int, inputs: bool
) -> None:
    sample = make_sample(facts, inputs=inputs)
    arranged = load_kind(name).arrange(sample, size)
    assert isinstance(arranged, Arrangement)
    shown = arranged.input_picture()
    assert (shown is None) == (arranged.caption == "")
    if shown is not None:
        assert shown.image.dtype == np.uint8
        assert shown.scale == "none"
        assert shown.image.shape[1] <= max(2 * size, arranged.input_width + 1)
    for panel in sample.panels:
        picture = arranged.picture(panel)
        assert picture.image.dtype == np.uint8
        assert picture.image.shape[2] == 3
        # fit() enlarges by whole factors: short of a factor of two at the most
        assert picture.image.shape[1] <= 2 * max(size, arranged.width) + 1
        assert picture.scale == ("sequential" if panel.is_signed is False else "diverging") or (
            panel.is_signed is None
        )


@pytest.mark.parametrize(("name", "facts"), WITH_KIND, ids=str)
def test_a_limit_makes_pictures_comparable_and_is_kept(name: str, facts: ProbeFacts) -> None:
    sample = make_sample(facts, n_epochs=2)
    arranged = load_kind(name).arrange(sample, 104)
    for panel in sample.panels:
        own = arranged.picture(panel)
        assert arranged.picture(panel, 7.5).limit == 7.5
        np.testing.assert_array_equal(arranged.picture(panel, own.limit).image, own.image)


@pytest.mark.parametrize(("name", "facts"), WITH_KIND, ids=str)
def test_values_that_are_not_finite_are_counted_and_drawn_in_green(
    name: str, facts: ProbeFacts
) -> None:
    sample = make_sample(facts)
    values = np.full(facts.shape, np.nan, np.float32)
    panel = Panel("saliency", 0, values, 1, 0.9, attributed_to="inputs")
    sample = Sample(7, 1, 1, (panel,), sample.inputs, facts)
    picture = load_kind(name).arrange(sample, 104).picture(panel)
    assert picture.n_not_finite == values.size
    assert (picture.image == np.array(pixels.NOT_FINITE, np.uint8)).all(axis=-1).any()


@pytest.mark.parametrize(("name", "facts"), WITH_KIND, ids=str)
def test_the_strongest_parts_fit_the_panels_that_have_parts(name: str, facts: ProbeFacts) -> None:
    sample = make_sample(facts)
    told = load_kind(name).strongest(sample, 3)
    if told is None:
        return
    assert isinstance(told, Strongest)
    assert 0 < len(told.parts) <= 3
    assert set(map(id, told.panels)) <= set(map(id, sample.panels))
    others = () if told.others is None else (told.others,)
    for part in (*told.parts, *others):
        assert len(part.attributions) == len(told.panels)
        assert part.name


LEADS = """
from hvd_xai.views.kind import Fit
from hvd_xai.views.kinds.series import arrange, strongest

def fits(facts):
    return Fit.LENGTHS if len(facts.shape) == 2 and facts.shape[1] == 12 else Fit.NONE
"""


def test_a_kind_in_a_new_file_takes_a_part_of_a_broader_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leads.py").write_text(LEADS)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    found: list[Any] = [
        find_kind(ProbeFacts(shape, np.dtype(np.float32))) for shape in ((300, 12), (300, 3))
    ]
    monkeypatch.delitem(sys.modules, f"{kinds.__name__}.leads")
    monkeypatch.delattr(kinds, "leads")
    assert [kind.__name__.rpartition(".")[2] for kind in found] == ["leads", "series"]
