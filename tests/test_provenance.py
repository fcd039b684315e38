import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import hvd_xai
from hvd_xai.provenance import digest, git_commit, versions, weights_digest


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
