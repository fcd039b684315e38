import subprocess
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import hvd_xai
from hvd_xai.lookup.describe import describe, sources
from hvd_xai.lookup.methods import load_method
from hvd_xai.provenance import digest, git_commit, versions, weights_digest


def method(
    model: object,
    inputs: object,
    /,
    *,
    ids: object,
    n_steps: int = 50,
    score: object = "output",
    baseline: object = None,
) -> None: ...


def smooth(model: object, /, *, ids: object, method: object, width: float = 0.5) -> None: ...


def test_bound_options_and_defaults_are_told() -> None:
    assert describe(method) == ("method", {"n_steps": 50, "score": "output", "baseline": None})
    assert describe(partial(method, n_steps=8))[1]["n_steps"] == 8


def test_the_outer_partial_wins() -> None:
    assert describe(partial(partial(method, n_steps=8), n_steps=9, score="loss"))[1] == {
        "n_steps": 9,
        "score": "loss",
        "baseline": None,
    }


def test_functions_stand_under_their_names() -> None:
    assert describe(partial(method, score=digest))[1]["score"] == "digest"
    name, options = describe(partial(smooth, method=partial(method, n_steps=8)))
    assert name == "smooth"
    assert options == {
        "method": {"method": {"n_steps": 8, "score": "output", "baseline": None}},
        "width": 0.5,
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.float32(0.5), 0.5),
        (float("nan"), "nan"),
        ((1, 2), [1, 2]),
        ({"a": np.int64(1)}, {"a": 1}),
        (Path("a"), "a"),
        (
            np.zeros(2, "f4"),
            {"shape": [2], "dtype": "float32", "digest": digest(np.zeros(2, "f4"))},
        ),
    ],
)
def test_values_become_json(value: object, told: object) -> None:
    assert describe(partial(method, baseline=value))[1]["baseline"] == told


def test_what_has_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="a lambda has no name"):
        describe(partial(method, score=lambda: 0))
    with pytest.raises(ValueError, match="bound by keyword"):
        describe(partial(method, 1))


def test_a_digest_depends_on_values_shape_dtype_and_order() -> None:
    a, b = np.arange(6, dtype=np.int32), np.arange(6, 12, dtype=np.int32)
    distinct = [
        digest(a),
        digest(b),
        digest(a.reshape(2, 3)),
        digest(a.astype("i8")),
        digest(a, b),
        digest(b, a),
        digest(np.append(a, b)),
    ]
    assert len(set(distinct)) == len(distinct)
    assert digest(a) == digest(np.arange(12, dtype=np.int32)[:6]) == digest(np.repeat(a, 2)[::2])


def test_a_digest_reads_blocks_and_odd_arrays() -> None:
    large = np.arange(10_000_000, dtype=np.float32)  # 40 MB: two blocks
    changed = large.copy()
    changed[-1] += 1
    assert digest(large) != digest(changed)
    assert (
        len(
            {
                digest(np.array(1.0)),
                digest(np.empty((0, 3))),
                digest(np.zeros(3, ml_dtypes.bfloat16)),
                digest(np.array(["a", "b"])),
            }
        )
        == 4
    )
    with pytest.raises(TypeError, match="has no bytes to digest"):
        digest(np.array([object()]))


def test_weights_count_names_metrics_and_seeds_do_not() -> None:
    import keras

    def model(**options: float) -> keras.Model:
        keras.utils.set_random_seed(1)
        layers = [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, **options),
        ]
        built = keras.Sequential(layers)
        built.compile("sgd", "mse", metrics=["mae"])
        return built

    first = model()
    assert weights_digest(first) == weights_digest(model(seed=7))
    before = weights_digest(first)
    first.layers[1].moving_mean.assign([1.0, 2.0, 3.0])
    assert weights_digest(first) != before


def test_versions_begin_with_our_own() -> None:
    found = versions()
    assert next(iter(found)) == "hvd_xai"
    assert found["hvd_xai"] == hvd_xai.__version__
    assert found["numpy"] == np.__version__


def test_methods_of_others_are_told_by_what_is_in_their_files(tmp_path: Path) -> None:
    def told(content: str) -> dict[str, str]:
        (tmp_path / "mine.py").write_text(content)
        return sources(
            partial(method, baseline=load_method(str(tmp_path / "mine.py")), score="output")
        )

    first, second = (
        told("def mine(inputs): return inputs"),
        told("def mine(inputs): return 2 * inputs"),
    )
    assert sorted(first) == ["mine.py", "test_provenance.py"]
    assert first["test_provenance.py"] == second["test_provenance.py"]
    assert first["mine.py"] != second["mine.py"]
    assert sources(partial(load_method("smoothgrad"), method=load_method("saliency"))) == {}
    assert sources(len) == {}


def test_the_commit_says_whether_files_differ(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            [
                "git",
                "-C",
                str(tmp_path),
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@example.org",
                *words,
            ],
            check=True,
            capture_output=True,
        )

    assert git_commit(tmp_path) is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"
