"""Explanations do not depend on the ranks, and an error of one rank is raised on all."""

import logging
import os
import threading
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer

import hvd_xai.keras as hvd
from hvd_xai import Explain, Probe, open_explanations
from hvd_xai.attributions.grad_cam import grad_cam
from hvd_xai.attributions.integrated_gradients import integrated_gradients
from hvd_xai.checkpoint.run_directory import RunDirectory
from hvd_xai.cli import explain as cli
from hvd_xai.errors import CheckpointError, PeerError, RecipeError, RunExistsError
from hvd_xai.explain.compiled_methods import CompiledMethods
from hvd_xai.explain.estimate import estimate
from hvd_xai.explain.once import explain
from hvd_xai.explain.runner import Runner
from hvd_xai.lookup.resolve import resolve
from hvd_xai.protocols import Attribution, Methods
from hvd_xai.ranks.world import World
from hvd_xai.recording.recorder import OnError, Recording
from hvd_xai.storage import arrays
from hvd_xai.tracing.precision import Precision

METHODS: list[Attribution] = [partial(integrated_gradients, n_steps=4), grad_cam]
NAMED: dict[str, Attribution | str] = {
    "from_black": METHODS[0],
    "from_mean": partial(integrated_gradients, n_steps=4, baseline="mean"),
    "grad_cam": "grad_cam",
}


def _model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, name="dense"),
        ]
    )


def _probe(n: int = 11) -> Probe:
    random = np.random.default_rng(0)
    return Probe(
        random.normal(size=(n, 6, 6, 1)).astype("float32"), random.integers(0, 4, n).astype("int32")
    )


def _runner(
    model: keras.Model, probe: Probe, methods: Methods, world: World, folder: Path
) -> Runner:
    """Returns a runner that writes nothing before it is run."""
    compiled = CompiledMethods(model, probe, resolve(methods))
    recording = Recording(overlap=False)
    return Runner(compiled, world=world, run=RunDirectory(folder / "run"), recording=recording)


def _raises(
    world: World, kind: type[Exception], message: str, *, alike: bool = True
) -> AbstractContextManager[object]:
    """Expects a PeerError where one rank fails, and the error's own type where all fail alike."""
    return pytest.raises(kind if alike or world.size == 1 else PeerError, match=message)


@pytest.mark.parametrize("n", [1, 2, 11])
def test_merged_explanations_equal_those_of_one_process(
    world: World, tmp_path: Path, n: int
) -> None:
    explain(
        _model(),
        _probe(n),
        NAMED,
        world=world,
        run=RunDirectory(tmp_path / "together"),
        epoch=3,
    )
    if not world.is_root:
        return
    explain(
        _model(),
        _probe(n),
        NAMED,
        world=World.alone(),
        run=RunDirectory(tmp_path / "alone"),
        epoch=3,
    )
    assert open_explanations(tmp_path / "together").methods(3) == list(NAMED)
    probes = [open_explanations(tmp_path / run).probe() for run in ("together", "alone")]
    windows = [None if probe is None else probe.window for probe in probes]
    assert windows[0] is not None
    assert windows[0] == windows[1]
    for name in NAMED:
        together, alone = (
            open_explanations(tmp_path / run).explanation(3, name) for run in ("together", "alone")
        )
        assert together.columns == alone.columns
        # micro-batches have one shape on every rank, so a row is computed in one way, wherever it
        # is computed
        np.testing.assert_array_equal(together.attributions(), alone.attributions())
        for column in set(alone.columns) - {"rank"}:
            np.testing.assert_array_equal(
                together.column(column), alone.column(column), err_msg=column
            )
        ours, theirs = (
            {file.key: file.xxh3_128 for file in one.manifest.files if "rank" not in file.key}
            for one in (together, alone)
        )
        assert ours == theirs
        assert together.manifest.doubts == alone.manifest.doubts
        assert np.bincount(together.column("rank"), minlength=world.size).tolist() == [
            n * (rank + 1) // world.size - n * rank // world.size for rank in range(world.size)
        ]


def test_two_epochs_trace_each_method_once_and_see_new_weights(
    world: World, tmp_path: Path
) -> None:
    model = _model()
    runner = _runner(model, _probe(), METHODS, world, tmp_path)
    first = runner.run(0, 0)
    traces = [compute.n_traces for compute in runner.compiled.computes.values()]
    model.set_weights([weight * 2 for weight in model.get_weights()])
    second = runner.run(1, 1)
    assert [compute.n_traces for compute in runner.compiled.computes.values()] == traces == [1, 1]
    assert (
        first.convergence_delta.keys()
        == second.convergence_delta.keys()
        == {"integrated_gradients"}
    )
    if world.is_root:
        run = open_explanations(tmp_path / "run")
        before, after = (run.explanation(epoch, "integrated_gradients") for epoch in (0, 1))
        assert not np.allclose(before.attributions(), after.attributions())
        assert before.manifest.weights_digest != after.manifest.weights_digest


def test_final_weights_are_bit_equal_with_and_without_explanations(
    world: World, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(24, 6, 6, 1)).astype("float32"), random.integers(0, 4, 24)

    def trained(callbacks: list[keras.callbacks.Callback]) -> list[np.ndarray]:
        model = _model()
        model.compile(
            hvd.DistributedOptimizer(keras.optimizers.Adam(0.01)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        state = [
            hvd.callbacks.BroadcastGlobalVariablesCallback(),
            hvd.callbacks.MetricAverageCallback(),
        ]
        mine = hvd.shard(x, y, world=world)
        model.fit(*mine, batch_size=4, epochs=2, verbose=0, callbacks=[*state, *callbacks])
        weights: list[np.ndarray] = [
            *model.get_weights(),
            *(variable.numpy() for variable in model.optimizer.variables),
        ]
        return weights

    plain = trained([])
    for overlap in (False, True):
        explain = Explain(
            _probe(),
            METHODS,
            world=world,
            run=tmp_path / f"overlap_{overlap}",
            recording=Recording(overlap=overlap),
        )
        explained = trained([explain])
        for a, b in zip(plain, explained, strict=True):
            np.testing.assert_array_equal(a, b)
    if world.is_root:
        apart, beside = (
            list(open_explanations(tmp_path / f"overlap_{overlap}")) for overlap in (False, True)
        )
        assert [one.manifest.files for one in apart] == [one.manifest.files for one in beside]
        assert len(beside) == 4


class _Full:
    """A sink whose disk is full from the second explanation on."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __call__(self, run: object, explanation: object, /) -> None:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) > 1:
            raise OSError("No space left on device")


@pytest.mark.parametrize("overlap", [False, True])
def test_what_fails_while_training_goes_on_ends_it_or_is_lost_with_a_warning(
    world: World, tmp_path: Path, overlap: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model()
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    sink = _Full()

    def fit(run: str, on_error: OnError) -> None:
        explain = Explain(
            _probe(),
            METHODS[:1],
            world=world,
            run=tmp_path / run,
            sinks=[sink],
            recording=Recording(overlap=overlap, on_error=on_error),
        )
        callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback(), explain]
        model.fit(np.zeros((4, 6, 6, 1)), np.zeros(4), epochs=3, verbose=0, callbacks=callbacks)

    fit("warned", "warn")
    said = [
        record.getMessage()
        for record in caplog.records
        if "has not all its explanations" in record.getMessage()
    ]
    assert len(said) == (2 if world.is_root else 0)
    if world.is_root:
        assert "epoch 1 has not all" in said[0]
        assert "integrated_gradients" in said[0]
        assert "No space left on device" in said[0]
        assert threading.main_thread().name not in sink.threads
        # the sink failed; what it was shown is committed
        assert open_explanations(tmp_path / "warned").epochs == [
            0,
            1,
            2,
        ]
    with _raises(world, OSError, "No space left on device", alike=False):
        fit("raised", "raise")


def test_training_goes_on_unchanged_after_a_method_failed(world: World, tmp_path: Path) -> None:
    def broken(*_: object, ids: object, fails: bool = True) -> object:
        raise RuntimeError("no gradient here")

    model = _model()
    before = model.get_weights()
    with _raises(world, RuntimeError, "no gradient here"):
        _runner(model, _probe(), [broken], world, tmp_path)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "call" not in vars(model.get_layer("conv"))


def test_a_probe_with_nan_on_one_rank_is_refused_on_all(world: World, tmp_path: Path) -> None:
    probe = _probe()
    probe.inputs[-1, 0, 0, 0] = np.nan  # the last rank's
    with _raises(world, ValueError, "inputs must be finite.*sample id 10", alike=False):
        _runner(_model(), probe, METHODS, world, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_probe_of_another_shape_is_refused(world: World, tmp_path: Path) -> None:
    probe = Probe(np.zeros((4, 5, 5, 1), "float32"), np.zeros(4, "int32"))
    with _raises(
        world, ValueError, r"takes inputs of shape \(None, 6, 6, 1\); got \(None, 5, 5, 1\)"
    ):
        _runner(_model(), probe, METHODS, world, tmp_path)


def test_targets_out_of_range_are_refused(world: World, tmp_path: Path) -> None:
    probe = _probe()
    probe.targets[-1] = 4
    with _raises(world, ValueError, "class ids 0 to 3.* 4 of sample 10", alike=False):
        _runner(_model(), probe, METHODS, world, tmp_path)


@pytest.mark.parametrize(("layer", "message"), [("covn", "'conv'"), ("dense", "conv")])
def test_a_layer_that_will_not_do_is_refused_with_those_that_would(
    world: World, tmp_path: Path, layer: str, message: str
) -> None:
    with _raises(world, ValueError, message):
        _runner(_model(), _probe(), [partial(grad_cam, layer=layer)], world, tmp_path)


def test_bfloat16_records_how_far_it_is_off_and_changes_nothing_else(
    world: World, tmp_path: Path
) -> None:
    precisions: tuple[Precision | None, ...] = (None, "bfloat16")
    for precision in precisions:
        explain(
            _model(),
            _probe(),
            METHODS,
            world=world,
            run=tmp_path / str(precision),
            precision=precision,
        )
    if not world.is_root:
        return
    exact, rough = (open_explanations(tmp_path / name) for name in ("None", "bfloat16"))
    for name in ("integrated_gradients", "grad_cam"):
        want, got = exact.explanation(0, name), rough.explanation(0, name)
        assert want.manifest.weights_digest == got.manifest.weights_digest
        assert (want.manifest.precision, want.manifest.precision_error) == (None, None)
        assert got.manifest.precision == "bfloat16"
        first = slice(0, 8)  # what is measured, however many ranks there are
        error = np.linalg.norm((got.attributions() - want.attributions())[first]) / np.linalg.norm(
            want.attributions()[first]
        )
        # attributions are stored as float16, which adds 2 ** -11 of the largest
        assert got.manifest.precision_error == pytest.approx(error, abs=2e-3)
        assert 0 < error < 0.1


def test_estimates_are_the_same_on_all_ranks_and_write_nothing(
    world: World, tmp_path: Path
) -> None:
    model, probe = _model(), _probe(40)
    before = model.get_weights()
    estimates = estimate(model, probe, resolve(NAMED), world=world)
    assert [(one.method, one.n_rows) for one in estimates] == [(name, 40) for name in NAMED]
    assert all(0 < one.seconds < 60 for one in estimates)
    assert (
        world.allgather("comparing", [one.seconds for one in estimates])
        == [[one.seconds for one in estimates]] * world.size
    )
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    explain(model, probe, NAMED, world=world, run=tmp_path / "run")
    if world.is_root:
        for one in estimates:
            committed = open_explanations(tmp_path / "run").explanation(0, one.method)
            assert one.n_bytes == 40 * committed.manifest.dtype.itemsize


@pytest.fixture
def _logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes back the logging that the command sets up."""
    logger = logging.getLogger("hvd_xai")
    for name, value in (
        ("propagate", logger.propagate),
        ("handlers", [*logger.handlers]),
        ("level", logger.level),
    ):
        monkeypatch.setattr(logger, name, value)


@pytest.mark.usefixtures("_logging")
def test_the_command_starts_goes_on_or_starts_anew(world: World) -> None:
    folder = Path(os.environ["HVD_XAI_TEST_FOLDER"], "command")  # the same on all ranks
    model, data, run = folder / "model.keras", folder / "data.npz", folder / "run"
    with world.together("writing model and data"):
        if world.is_root:
            folder.mkdir()
            _model().save(model)
            np.savez(data, inputs=_probe().inputs, targets=_probe().targets)
    with pytest.raises(RecipeError, match="unknown score 'logits'"):
        cli.explain(model, data, run, set_=["score=logits"], dry_run=True)
    with world.together("looking for what is left"):
        if world.is_root:  # which removes it
            assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "model.keras"]
    cli.explain(model, data, run, set_=["n_steps=2"])
    with pytest.raises((RunExistsError, PeerError), match=r"mode='resume'.* mode='overwrite'"):
        cli.explain(model, data, run, set_=["n_steps=3"])
    with pytest.raises((CheckpointError, PeerError), match="committed with other options"):
        cli.explain(model, data, run, set_=["n_steps=3"], resume=True)
    with pytest.raises(typer.BadParameter, match="not both"):
        cli.explain(model, data, run, resume=True, overwrite=True)
    cli.explain(model, data, run, set_=["n_steps=3"], overwrite=True)
    assert (
        open_explanations(run).explanation(0, "integrated_gradients").manifest.options["n_steps"]
        == 3
    )
    twice = ["few=integrated_gradients", "mean=integrated_gradients"]
    cli.explain(
        model, data, folder / "named", method=twice, set_=["few.n_steps=2", "mean.baseline=mean"]
    )
    few, mean = open_explanations(folder / "named")
    assert (
        few.manifest.method,
        few.manifest.options["n_steps"],
        few.manifest.options["baseline"],
    ) == ("few", 2, "zero")
    assert (
        mean.manifest.method,
        mean.manifest.options["n_steps"],
        mean.manifest.options["baseline"],
    ) == ("mean", 50, "mean")
    with pytest.raises(
        RecipeError,
        match=(
            r"'--set n_steps=2' could mean more than one option; write few\.n_steps=2 or"
            r" mean\.n_steps=2"
        ),
    ):
        cli.explain(model, data, folder / "other", method=twice, set_=["n_steps=2"])
    with pytest.raises(ValueError, match=r"letters, digits, .* got '2nd'"):
        cli.explain(model, data, folder / "other", method=["2nd=saliency"])
    with world.together("writing a single row"):
        if world.is_root:
            np.savez(folder / "one.npz", inputs=_probe().inputs[:1], targets=_probe().targets[:1])
    cli.explain(model, folder / "one.npz", folder / "one", set_=["n_steps=2"])
    assert sorted(path.name for path in (folder / "one").iterdir()) == [".lock", "explanations"]


@pytest.mark.usefixtures("_logging")
def test_the_command_explains_what_is_predicted_where_there_are_no_targets(world: World) -> None:
    folder = Path(os.environ["HVD_XAI_TEST_FOLDER"], "predicted")
    model, data = folder / "model.keras", folder / "x.npy"
    with world.together("writing model and data"):
        if world.is_root:
            folder.mkdir()
            _model().save(model)
            np.save(data, _probe().inputs)
    with pytest.raises(
        (ValueError, PeerError),
        match=r"x.npy' has no targets; give Dataset\(targets=\.\.\.\), or bind score='predicted'",
    ):
        cli.explain(model, data, folder / "refused", method=["saliency"])
    methods, options = (
        ["saliency", "grad_cam"],
        ["saliency.score=predicted", "grad_cam.score=predicted"],
    )
    cli.explain(model, data, folder / "run", method=methods, set_=options, dry_run=True)
    cli.explain(model, data, folder / "run", method=methods, set_=options)
    found = open_explanations(folder / "run").explanation(0, "saliency")
    classes = _model().predict(_probe().inputs, verbose=0).argmax(axis=1)
    assert len(set(classes.tolist())) > 1
    for name in ("target", "label", "prediction"):
        np.testing.assert_array_equal(found.column(name), classes)
    # is the same probe
    cli.explain(
        model, data, folder / "run", method=["saliency"], set_=["score=predicted"], resume=True
    )


def test_estimates_are_of_the_shares_that_are_explained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 4 * 72)
    # 4 rows: shares end between Zarr shards, and are not as even as can be
    monkeypatch.setattr(arrays, "SHARD_BYTES", 4 * 72)
    seen: list[int] = []

    def looks(
        model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
    ) -> tf.Tensor:
        tf.py_function(lambda ids: seen.extend(ids.numpy().tolist()), [ids], [])
        return inputs

    probe = _probe(4 * (16 * world.size + 1) - 1)
    estimate(_model(), probe, resolve([looks]), world=world)
    assert seen[0] == 4 * ((16 * world.size + 1) * world.rank // world.size)


def test_different_probes_are_refused(world: World, tmp_path: Path) -> None:
    if world.size == 1:
        return
    with pytest.raises(
        ValueError, match="rank 1 differs from rank 0: the ranks were given different probes"
    ):
        _runner(_model(), _probe(11 + world.rank), METHODS, world, tmp_path)


def test_different_weights_are_refused(world: World, tmp_path: Path) -> None:
    runner = _runner(_model(seed=world.rank), _probe(), METHODS, world, tmp_path)
    if world.size == 1:
        return
    with pytest.raises(ValueError, match=r"different weights.*BroadcastGlobalVariablesCallback"):
        runner.run(0, 0)


def test_a_run_that_exists_is_refused_on_all_ranks_and_left_alone(
    world: World, tmp_path: Path
) -> None:
    explain(_model(), _probe(), METHODS, world=world, run=RunDirectory(tmp_path / "run"))
    with pytest.raises(Exception, match=r"holds a run already. Pass RunDirectory"):
        explain(_model(), _probe(), METHODS, world=world, run=RunDirectory(tmp_path / "run"))
    if world.is_root:
        assert len(list(open_explanations(tmp_path / "run"))) == 2


def test_a_failing_sink_raises_on_all_ranks(world: World, tmp_path: Path) -> None:
    class Full:
        def __call__(self, run: object, explanation: object, /) -> None:
            raise OSError("No space left on device")

        def close(self) -> None:
            pass

    with _raises(world, OSError, "No space left on device", alike=False):
        explain(
            _model(),
            _probe(),
            METHODS,
            world=world,
            run=RunDirectory(tmp_path / "run"),
            sinks=[Full()],
        )


def test_nan_attributions_are_recorded_counted_and_told(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model()
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    explain(model, _probe(), METHODS, world=world, run=RunDirectory(tmp_path / "run"))
    if world.is_root:
        explanation = open_explanations(tmp_path / "run").explanation(0, "integrated_gradients")
        assert explanation.manifest.nonfinite == 11 * 36
        assert np.isnan(explanation.attributions()).all()
    # Once for all ranks, whose samples it names.
    wanted = (
        "integrated_gradients at epoch 0: 11 of 11 samples have attributions that are NaN or"
        " infinite, with sample ids 0, 1, 2, 3, 4, ... Their scores are not finite either"
    )
    assert caplog.text.count(wanted) == (1 if world.is_root else 0)


def _nothing(
    model: keras.Model, inputs: tf.Tensor, targets: tf.Tensor, /, *, ids: tf.Tensor
) -> tf.Tensor:
    """Attributes zeros to all samples but those of even ids."""
    is_odd = tf.cast(ids % 2, tf.float32)
    return inputs * is_odd[:, None, None, None]


def test_doubts_of_all_ranks_are_told_once_by_the_root(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    explain(_model(), _probe(), [_nothing], world=world, run=RunDirectory(tmp_path / "run"))
    told = [one.getMessage() for one in caplog.records if "samples have" in one.getMessage()]
    assert len(told) == world.is_root
    if world.is_root:
        # ids 0, 2, ... 10 of 11
        assert told[0].startswith("_nothing at epoch 0: 6 of 11 samples have attributions of zero")
        (explanation,) = open_explanations(tmp_path / "run")
        assert explanation.manifest.doubts == {"zero": 6}


def test_every_second_epoch_and_the_last_are_explained(world: World, tmp_path: Path) -> None:
    model = _model()
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.01)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(),
        Explain(_probe(), METHODS, world=world, run=tmp_path / "run", every=2),
    ]
    history = model.fit(
        np.zeros((4, 6, 6, 1)), np.zeros(4), epochs=5, verbose=0, callbacks=callbacks
    ).history
    assert len(history["convergence_delta"]) == 3
    if world.is_root:
        assert open_explanations(tmp_path / "run").epochs == [1, 3, 4]


def test_the_epoch_that_training_stops_at_is_explained(world: World, tmp_path: Path) -> None:
    model = _model()
    model.compile(
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(),
        hvd.callbacks.MetricAverageCallback(),
        Explain(_probe(), "integrated_gradients", world=world, run=tmp_path / "run", every=5),
        keras.callbacks.EarlyStopping("loss", patience=1),
    ]
    model.fit(np.zeros((4, 6, 6, 1)), np.zeros(4), epochs=9, verbose=0, callbacks=callbacks)
    if world.is_root:
        assert open_explanations(tmp_path / "run").epochs == [1]
