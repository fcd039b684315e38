import json
from collections.abc import Callable
from typing import Any

import pytest

from hvd_xai.checkpoint.json_record import MAX_BYTES, seal
from hvd_xai.checkpoint.manifest import Header, Manifest, RankRows
from hvd_xai.checkpoint.rows import dtypes_of, row_dtype
from hvd_xai.errors import CheckpointError
from hvd_xai.storage.durable import FileEntry
from tests.checkpoint.small import make_header


def make_manifest(**changes: Any) -> Manifest:
    header = make_header(10, (8, 8), world_size=3)
    values = {name: getattr(header, name) for name in Header.__dataclass_fields__}
    values |= {
        "dtypes": dtypes_of(row_dtype((8, 8))),
        "sample_order_digest": "0" * 32,
        "nonfinite": 3,
        "created": "2026-01-02T03:04:05+00:00",
        "files": (FileEntry("attributions/c/0/0/0", 12, "a" * 32),),
    }
    return Manifest(**{**values, **changes})


def test_manifest_is_read_as_it_was_written() -> None:
    manifest = make_manifest()
    again = Manifest.from_json(manifest.to_json())
    assert again.to_json() == manifest.to_json()
    assert (again.files, again.ranks, again.dtype, again.n_bytes) == (
        manifest.files,
        manifest.ranks,
        row_dtype((8, 8)),
        12,
    )
    assert Manifest.from_json(make_manifest(git_commit="0a").to_json()).git_commit == "0a"
    assert again.header() == Header(
        **{name: getattr(again, name) for name in Header.__dataclass_fields__}
    )


def test_a_method_that_is_committed_under_another_name_says_its_own() -> None:
    assert make_manifest().function == "integrated_gradients"
    assert b'"function"' not in make_manifest().to_json()  # as it was before there was such a key
    manifest = make_manifest(method="from_black", function="integrated_gradients")
    again = Manifest.from_json(manifest.to_json())
    assert (again.method, again.function, again.header().function) == (
        "from_black",
        "integrated_gradients",
        "integrated_gradients",
    )


def test_manifests_from_before_negative_values_were_counted_say_nothing_of_them() -> None:
    assert Manifest.from_json(make_manifest(negative=4).to_json()).negative == 4
    assert Manifest.from_json(resealed(lambda record: record.pop("negative"))).negative is None


def resealed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Returns a manifest that was changed by somebody who also mended its digest."""
    record = json.loads(make_manifest().to_json())
    record.pop("digest")
    change(record)
    return seal(record)


def test_facts_about_the_method_are_fields() -> None:
    facts: dict[str, Any] = {
        "attributed_to": "places",
        "signed": False,
        "precision": "bfloat16",
        "precision_error": 0.0625,
    }
    again = Manifest.from_json(make_manifest(**facts).to_json())
    assert {name: getattr(again, name) for name in facts} == facts
    unsaid = Manifest.from_json(make_manifest().to_json())
    assert {getattr(unsaid, name) for name in facts} == {None}


def of_schema_1_0(sample_shape: list[int], options: dict[str, Any]) -> Manifest:
    """Returns a manifest as versions wrote it that had no facts about the method."""

    def change(record: dict[str, Any]) -> None:
        for name in ("attributed_to", "signed", "precision", "precision_error"):
            del record[name]
        dtypes = dtypes_of(row_dtype(tuple(sample_shape), per_sample={"convergence_delta": "<f4"}))
        record.update(schema="1.0", sample_shape=sample_shape, options=options, dtypes={**dtypes})

    return Manifest.from_json(resealed(change))


@pytest.mark.parametrize(
    ("sample_shape", "options", "attributed_to"),
    [
        ([5], {}, "inputs"),
        ([5], {"layer": None}, "inputs"),
        ([5], {"unit_layer": "dense"}, "inputs"),
        ([5], {"layer": "dense"}, "places"),
        ([5], {"method": {"layer_cam": {"layer": "conv"}}}, "places"),
        ([5], {"layer": "words", "is_summed": True}, "places"),
        ([5], {"layer": "words", "is_summed": False}, "units"),
        ([5], {"method": {"mine": {"is_summed": False}}}, "units"),
        ([8, 8], {}, None),
        ([8, 8], {"layer": "conv"}, None),
    ],
)
def test_a_manifest_of_schema_1_0_says_by_its_options_what_may_be_named(
    sample_shape: list[int], options: dict[str, Any], attributed_to: str | None
) -> None:
    manifest = of_schema_1_0(sample_shape, options)
    assert (manifest.attributed_to, manifest.signed) == (attributed_to, None)
    assert manifest.options == options


def test_the_precision_of_schema_1_0_is_no_option() -> None:
    of_run = {"n_steps": 3, "precision": "bfloat16", "precision_error": None}
    manifest = of_schema_1_0([8, 8], of_run)
    assert (manifest.precision, manifest.options) == ("bfloat16", {"n_steps": 3})
    assert of_schema_1_0([8, 8], {**of_run, "precision_error": 0.5}).precision_error == 0.5
    of_method = {"precision": 7}
    assert of_schema_1_0([8, 8], of_method).options == of_method


@pytest.mark.parametrize(
    ("signed", "negative", "is_signed"),
    [(True, 0, True), (False, 3, False), (None, 3, True), (None, 0, False), (None, None, None)],
)
def test_a_sign_is_what_the_method_says_or_what_was_counted(
    signed: bool | None, negative: int | None, is_signed: bool | None
) -> None:
    assert make_manifest(signed=signed, negative=negative).is_signed is is_signed


def test_unknown_keys_are_ignored() -> None:
    text = resealed(
        lambda record: record.update(schema="1.7", colour={"of": ["a", "higher", "minor"]})
    )
    assert Manifest.from_json(text).schema == "1.7"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(schema="2.0"), "Upgrade hvd_xai"),
        (lambda record: record.update(schema="newest"), "major.minor"),
        (
            lambda record: record.pop("n_samples"),
            "an integer of 0 or more under 'n_samples'; got nothing",
        ),
        (lambda record: record.update(n_samples=True), "an integer"),
        (lambda record: record.update(n_samples=-1), "an integer"),
        (lambda record: record.update(n_samples=2**70), "an integer"),
        (lambda record: record.update(n_samples=11), "rows end at 10"),
        (lambda record: record.update(n_samples=0, ranks=[], world_size=0), "1 or more"),
        (lambda record: record.update(sample_shape=[1, "8"]), "a list of integers"),
        (lambda record: record.update(sample_shape=[-8, 8]), "a list of integers"),
        (lambda record: record.update(sample_shape=[8] * 9), "rank 0 to 4"),
        (lambda record: record.update(method="../../etc"), "method's name"),
        (lambda record: record.update(method=None), "a string"),
        (lambda record: record.update(function=3), "a string under 'function'"),
        (lambda record: record.update(options=[]), "an object"),
        (lambda record: record.update(versions={"numpy": 2}), "an object of strings"),
        (lambda record: record.update(created="yesterday"), "isoformat"),
        (lambda record: record.update(created="0001-01-01T00:00:00+14:00"), "out of range"),
        (lambda record: record.update(git_commit=3), "a string under 'git_commit'"),
        (lambda record: record.update(attributed_to="features"), "'inputs', 'places', 'units'"),
        (lambda record: record.update(signed="no"), "true or false under 'signed'"),
        (lambda record: record.update(precision=16), "a string under 'precision'"),
        (lambda record: record.update(precision_error="much"), "a number under 'precision_error'"),
        (lambda record: record.update(metrics={"loss": 10**400}), "too large"),
        (lambda record: record.update(sample_order_digest="zz"), "hexadecimal"),
        (lambda record: record["dtypes"].update(scale="<f8"), "must name the arrays"),
        (lambda record: record["dtypes"].update(target="O"), "do not make a row"),
        (lambda record: record["dtypes"].pop("thumbnail"), "must name the arrays"),
        (lambda record: record["dtypes"].update({"../../up": "<f4"}), "do not make a row"),
        (lambda record: record.update(files={}), "a list of objects"),
        (lambda record: record.update(files=[3]), "a list of objects"),
        (lambda record: record["files"].append(record["files"][0]), "names a file twice"),
        (lambda record: record["files"][0].update(size=1.5), "an integer"),
        *(
            (lambda record, key=key: record["files"][0].update(key=key), "stay inside")
            for key in (
                "../run.json",
                "a/../../b",
                "/etc/passwd",
                "",
                ".",
                "./a",
                "a//b",
                "a/",
                "a\\..\\b",
                "a\0b",
            )
        ),
    ],
)
def test_manifest_that_is_not_as_it_must_be_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        Manifest.from_json(resealed(change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not readable JSON"),
        (b"[1, 2]", "must hold a JSON object"),
        (b"\xff\xfe{}", "not readable JSON"),
        (make_manifest().to_json()[:-20], "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (
            b'{"options": ' + b'{"a": ' * 100 + b"0" + b"}" * 101,
            "more than 100 lists and objects within each other",
        ),
        (b'{"schema": "1.0", "digest": "' + b"0" * 32 + b'", "x": 1e999}', "holds a number"),
        (b'{"schema": "1.0", "x": ' + b"9" * 5000 + b"}", "not readable JSON"),
        (b" " * (MAX_BYTES + 1), "no record of hvd_xai has more"),
        (
            make_manifest().to_json().replace(b'"step": 0', b'"step": 1'),
            "was changed after it was written",
        ),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": ".hidden"},
        {"n_samples": 0},
        {"epoch": -1},
        {"world_size": 2},
        {"ranks": (RankRows(0, "h", 0, 4), RankRows(1, "h", 5, 10)), "world_size": 2},
        {"ranks": (RankRows(0, "h", 0, 9),)},
    ],
)
def test_wrong_headers_are_refused(changes: dict[str, Any]) -> None:
    header = make_header(10, (8, 8))
    values = {name: getattr(header, name) for name in Header.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"must|rows end"):
        Header(**{**values, **changes})


def test_empty_shards_are_rows_of_no_rank() -> None:
    header = make_header(2, (), world_size=5)
    assert [(rows.start, rows.stop) for rows in header.ranks] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (1, 1),
        (1, 2),
    ]
