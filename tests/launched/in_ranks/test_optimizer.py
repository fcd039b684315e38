"""The distributed optimizer equals one process on the concatenated batch.

Each optimizer of Keras is tried, and each option.
"""

import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import xxhash

import hvd_xai.keras as hvd
from hvd_xai.ranks.world import World

ROUNDING = 3e-6  # float32 sums in another order, over a few steps
N_STEPS = 6
Make = Callable[[], keras.optimizers.Optimizer]

# of each case: the largest difference of a weight, and how many sets of weights the ranks hold
TABLE: dict[str, tuple[float, int]] = {}


@dataclass(frozen=True)
class Case:
    """One optimizer with options, and what one process must do to get the same weights."""

    make: Make
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = ROUNDING
    sums: bool = False  # the reference adds the ranks' gradients
    n_passes: int = 1
    averages_passes: bool = False
    dtype: str = "float32"


def _optimizers_of_keras() -> Iterator[tuple[str, Make]]:
    for name, kind in vars(keras.optimizers).items():
        if (
            not isinstance(kind, type)
            or not issubclass(kind, keras.optimizers.Optimizer)
            or kind is keras.optimizers.Optimizer
        ):
            continue
        if name not in ("LossScaleOptimizer", "MultiOptimizer"):  # they wrap others, below
            yield name, partial(kind, learning_rate=0.05)


def _schedule() -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)


def _loss_scale(**options: Any) -> Make:
    return lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, momentum=0.9, **options), dynamic_growth_steps=3
    )


def _without_decay_of_biases() -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def _multi() -> keras.optimizers.Optimizer:
    per_path = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    per_path["bias"] = keras.optimizers.Adam(0.01)
    return keras.optimizers.MultiOptimizer(per_path)


class Own(keras.optimizers.SGD):  # type: ignore[misc]  # keras ships no types
    """An optimizer of a user that cannot be made from its configuration."""

    def __init__(self, n_passes: int | None = None) -> None:
        super().__init__(0.1, momentum=0.9, gradient_accumulation_steps=n_passes)


def _sgd(**options: Any) -> Make:
    return lambda: keras.optimizers.SGD(0.1, momentum=0.9, **options)


def _adam(**options: Any) -> Make:
    return lambda: keras.optimizers.Adam(0.01, **options)


CASES = {
    **{name: Case(kind) for name, kind in _optimizers_of_keras()},
    "clipnorm": Case(_sgd(clipnorm=0.3)),
    "global_clipnorm": Case(_sgd(global_clipnorm=0.3)),
    "clipvalue": Case(_sgd(clipvalue=0.2)),
    "weight_decay": Case(_sgd(weight_decay=0.1)),
    "weight decay not of biases": Case(_without_decay_of_biases),
    "EMA, overwriting": Case(_adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)),
    "schedule": Case(lambda: keras.optimizers.SGD(_schedule())),
    "loss_scale_factor": Case(_sgd(loss_scale_factor=8.0)),
    "loss scale": Case(_loss_scale()),
    "accumulation": Case(_adam(gradient_accumulation_steps=3)),
    "accumulation, global_clipnorm": Case(_sgd(gradient_accumulation_steps=2, global_clipnorm=0.3)),
    "accumulation, EMA, decay": Case(
        _adam(gradient_accumulation_steps=2, use_ema=True, weight_decay=0.1)
    ),
    "accumulation, loss scale": Case(_loss_scale(gradient_accumulation_steps=2)),
    "passes, summed": Case(_adam(), {"backward_passes_per_step": 2}, n_passes=2),
    "passes, averaged": Case(
        _sgd(clipnorm=0.3),
        {"backward_passes_per_step": 3, "average_aggregated_gradients": True},
        n_passes=3,
        averages_passes=True,
    ),
    "passes, loss scale": Case(_loss_scale(), {"backward_passes_per_step": 2}, n_passes=2),
    "MultiOptimizer": Case(_multi),
    "own class, passes": Case(Own, {"backward_passes_per_step": 2}, n_passes=2),
    "own class, accumulation, loss scale": Case(
        lambda: keras.optimizers.LossScaleOptimizer(Own(2))
    ),
    "Sum": Case(_adam(), {"op": hvd.Sum}, sums=True),
    # 11 bits of gradients up to 2, times 0.1, six steps
    "fp16": Case(_sgd(), {"compression": hvd.Compression.fp16}, tolerance=2e-3),
    "gradient_predivide_factor": Case(_sgd(), {"gradient_predivide_factor": 2.0}),
    "groups": Case(_sgd(), {"groups": 2}),
    "sparse_as_dense": Case(_sgd(), {"sparse_as_dense": True}),
    # 8 bits of weights up to 2, six steps
    "bfloat16 variables": Case(_sgd(), tolerance=0.05, dtype="bfloat16"),
}


def _variables(dtype: str = "float32") -> list[keras.Variable]:
    random = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,), "other": (3, 2)}
    return [
        keras.Variable(random.normal(size=shape).astype("float32"), dtype=dtype, name=name)
        for name, shape in shapes.items()
    ]


def _slopes(step: int, n_ranks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each rank's gradient of a weight w is a * w + b, so that of one process is mean(a) * w +
    mean(b). Returns (a, b) of each rank."""
    random = np.random.default_rng([1, step])
    return [
        (random.uniform(0.1, 1.0, 3).astype("float32"), random.normal(size=3).astype("float32"))
        for _ in range(n_ranks)
    ]


def _gradients(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable], a: Any, b: Any
) -> list[tf.Tensor]:
    return [
        optimizer.scale_loss(
            tf.cast(a[index], variable.dtype) * variable + tf.cast(b[index], variable.dtype)
        )
        for index, variable in enumerate(variables)
    ]


def _alone(case: Case, n_ranks: int) -> list[keras.Variable]:
    variables, optimizer = _variables(case.dtype), case.make()
    optimizer.build(variables)
    sums: list[tf.Tensor] = []
    for step in range(N_STEPS):
        combine = np.sum if case.sums else np.mean
        a, b = (
            combine(list(column), axis=0, dtype="float64").astype("float32")
            for column in zip(*_slopes(step, n_ranks), strict=True)
        )
        gradients = _gradients(optimizer, variables, a, b)
        sums = (
            [total + gradient for total, gradient in zip(sums, gradients, strict=True)]
            if step % case.n_passes
            else gradients
        )
        if (step + 1) % case.n_passes:
            getattr(optimizer, "inner_optimizer", optimizer).iterations.assign_add(1)
        else:
            optimizer.apply(
                [total / case.n_passes if case.averages_passes else total for total in sums],
                variables,
            )
    return variables


def _together(case: Case, world: World) -> list[keras.Variable]:
    variables, optimizer = (
        _variables(case.dtype),
        hvd.DistributedOptimizer(case.make(), **case.options),
    )
    optimizer.build(variables)
    step_of_graph = tf.function(
        lambda a, b: optimizer.apply(_gradients(optimizer, variables, a, b), variables),
        autograph=False,
    )
    for step in range(N_STEPS):
        step_of_graph(*map(tf.constant, _slopes(step, world.size)[world.rank]))
    return variables


def _numpy(variables: list[Any]) -> list[np.ndarray]:
    return [np.asarray(tf.cast(variable, tf.float64)) for variable in variables]


def _spread(world: World, variables: list[Any]) -> int:
    """Returns how many different sets of weights the ranks hold, bit by bit."""
    digest = xxhash.xxh3_128_hexdigest(b"".join(array.tobytes() for array in _numpy(variables)))
    return len({str(entry) for entry in world.allgather("testing", digest)})


def _compare(
    world: World, name: str, expected: list[Any], found: list[Any], tolerance: float = ROUNDING
) -> None:
    difference = max(
        float(np.abs(a - b).max()) for a, b in zip(_numpy(expected), _numpy(found), strict=True)
    )
    TABLE[name] = difference, _spread(world, found)
    assert difference <= tolerance
    assert TABLE[name][1] == 1


@pytest.mark.parametrize("name", CASES)
def test_ranks_update_as_one_process_does(world: World, name: str) -> None:
    case = CASES[name]
    found = _together(case, world)
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(_numpy(_variables(case.dtype)), _numpy(found), strict=True)
    )
    _compare(world, name, _alone(case, world.size), found, case.tolerance)


def test_adasum_is_the_sum_of_orthogonal_gradients_and_one_of_equal_ones(world: World) -> None:
    if world.size & (world.size - 1) or (world.size > 1 and not hvd.mpi_enabled()):
        with pytest.raises(ValueError, match=r"Use op=Average"):
            hvd.DistributedOptimizer(keras.optimizers.SGD(1.0), op=hvd.Adasum)
        return
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(1.0), op=hvd.Adasum)
    equal, orthogonal = (
        keras.Variable(np.zeros(4, "float32")),
        keras.Variable(np.zeros(4, "float32")),
    )
    axes = np.eye(4, dtype="float32")
    optimizer.apply(
        [tf.constant([1.0, 2.0, 3.0, 4.0]), tf.constant(axes[world.rank])], [equal, orthogonal]
    )
    np.testing.assert_allclose(equal.numpy(), [-1, -2, -3, -4], rtol=1e-6)
    np.testing.assert_allclose(orthogonal.numpy(), -axes[: world.size].sum(axis=0), rtol=1e-6)


def _count_allreduces(world: World, path: Path, work: Callable[[], object]) -> list[int]:
    """Returns, on the root, how often each first tensor of a group of gradients was reduced
    meanwhile, from Horovod's own timeline."""
    if world.is_root:
        hvd.start_timeline(str(path))
    world.agree("testing")
    work()
    world.agree("testing")
    if not world.is_root:
        return []
    hvd.stop_timeline()
    deadline = time.monotonic() + 10
    while (
        not (path.exists() and path.read_text().rstrip().endswith("]"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    events = json.loads(path.read_text())
    names = {
        event["pid"]: event["args"]["name"]
        for event in events
        if event.get("name") == "process_name" and "name" in event["args"]
    }
    begun = [names[event["pid"]] for event in events if event.get("name") == "ALLREDUCE"]
    firsts = [name for name in begun if re.search(r"gradients\.\d+\.group0(_1of\d+)?$", name)]
    return sorted(firsts.count(name) for name in set(firsts))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SGD", N_STEPS),
        ("accumulation", N_STEPS // 3),
        ("accumulation, loss scale", N_STEPS // 2),
        ("passes, averaged", N_STEPS // 3),
    ],
)
def test_accumulated_gradients_are_reduced_once_an_update(
    world: World, tmp_path: Path, name: str, expected: int
) -> None:
    counted = _count_allreduces(
        world, tmp_path / "timeline.json", lambda: _together(CASES[name], world)
    )
    assert counted == ([expected] if world.is_root and world.size > 1 else counted)
    assert world.size == 1 or counted or not world.is_root


# What fit does with it


def _model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(3)]
    )


def _frozen_model() -> keras.Model:
    model = _model()
    model.layers[0].trainable = False
    return model


def _mixed(policy: str) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        keras.config.set_dtype_policy(policy)
        try:
            return _model()
        finally:
            keras.config.set_dtype_policy("float32")

    return build


FITS: dict[str, tuple[Callable[[], keras.Model], Make, dict[str, Any], float]] = {
    "fit, steps_per_execution": (_model, _sgd(), {"steps_per_execution": 2}, ROUNDING),
    "fit, run_eagerly": (_model, _sgd(), {"run_eagerly": True}, ROUNDING),
    "fit, frozen layer": (_frozen_model, _sgd(global_clipnorm=0.1), {}, ROUNDING),
    "fit, accumulation": (
        _model,
        _adam(gradient_accumulation_steps=2, global_clipnorm=0.1),
        {},
        ROUNDING,
    ),
    # 8 bits of activations, which batches of other sizes round otherwise
    "fit, mixed_bfloat16": (_mixed("mixed_bfloat16"), _sgd(), {}, 5e-3),
    "fit, mixed_float16, wrapped by Keras": (_mixed("mixed_float16"), _sgd(), {}, 2e-3),
}


@pytest.mark.parametrize("name", FITS)
def test_ranks_fit_as_one_process_on_the_concatenated_batch(world: World, name: str) -> None:
    build, make, options, tolerance = FITS[name]
    n_steps, batch = 4, 6
    random = np.random.default_rng(1)
    x, y = (
        random.normal(size=(n_steps * batch * world.size, width)).astype("float32")
        for width in (5, 3)
    )
    mine_x, mine_y = (
        array.reshape(n_steps, world.size, batch, -1)[:, world.rank].reshape(n_steps * batch, -1)
        for array in (x, y)
    )
    alone, together = build(), build()
    alone.compile(make(), "mse", **options)
    alone.fit(x, y, batch_size=batch * world.size, shuffle=False, verbose=0)
    together.compile(hvd.DistributedOptimizer(make()), "mse", jit_compile=False, **options)
    callbacks = [hvd.callbacks.BroadcastGlobalVariablesCallback()]
    together.fit(mine_x, mine_y, batch_size=batch, shuffle=False, verbose=0, callbacks=callbacks)
    _compare(world, name, alone.weights, together.weights, tolerance)


def test_optimizers_of_ranks_that_have_built_different_things_still_meet(world: World) -> None:
    """Horovod pairs tensors by name and waits for ever for one that the others call otherwise."""
    for _ in range(world.rank):
        keras.optimizers.SGD(), _model()
    model = _model()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    model.train_on_batch(np.full((2, 5), world.rank, "float32"), np.ones((2, 3), "float32"))
    assert _spread(world, model.weights) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sparse_as_dense": True},
        {"gradient_predivide_factor": 2.0},
        {"backward_passes_per_step": 2},
    ],
)
def test_embeddings_and_unused_heads_train_as_one_process(
    world: World, options: dict[str, Any]
) -> None:
    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        tokens = keras.Input((4,), dtype="int32")
        embedded = keras.layers.Concatenate()(
            [keras.layers.Embedding(11, width)(tokens) for width in (3, 2)]
        )
        dense = keras.layers.Dense(2)(keras.layers.Flatten()(embedded))
        return keras.Model(tokens, [dense, keras.layers.Dense(2, name="unused")(dense)])

    random = np.random.default_rng(2)
    x = random.integers(0, 11, (2 * world.size, 4))
    y = random.normal(size=(2 * world.size, 2)).astype("float32")
    n_passes = options.get("backward_passes_per_step", 1)

    def step(
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        x: np.ndarray,
        y: np.ndarray,
        n_passes: int,
    ) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x)[0] - y) ** 2)
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        assert any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        assert any(gradient is None for gradient in gradients)
        for _ in range(n_passes):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Gradients do not exist")
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    alone, together = build(), build()
    step(alone, keras.optimizers.SGD(0.1 * n_passes), x, y, 1)
    mine = slice(world.rank * 2, world.rank * 2 + 2)
    step(
        together,
        hvd.DistributedOptimizer(keras.optimizers.SGD(0.1), **options),
        x[mine],
        y[mine],
        n_passes,
    )
    _compare(world, f"embedding, None, {options}", alone.weights, together.weights)


def test_a_step_that_xla_is_to_compile_is_refused(world: World) -> None:
    class WithTape(keras.Sequential):  # type: ignore[misc]  # keras ships no types
        def train_step(self, data: Any) -> dict[str, Any]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
            variables = self.trainable_variables
            self.optimizer.apply(
                hvd.DistributedGradientTape(tape).gradient(loss, variables), variables
            )
            return {"loss": loss}

    sgd = keras.optimizers.SGD(0.1)
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    )
    cases = (
        (keras.Sequential, hvd.DistributedOptimizer(sgd)),
        (keras.Sequential, hvd.DistributedOptimizer(scaled)),
        (WithTape, sgd),
    )
    for kind, optimizer in cases:
        model = kind([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile(optimizer, "mse", jit_compile=True)
        with pytest.raises(
            ValueError, match=r"jit_compile=True.*Compile it with jit_compile=False"
        ):
            model.train_on_batch(np.zeros((2, 5), "float32"), np.zeros((2, 3), "float32"))


def test_options_that_do_not_fit_are_refused(world: World) -> None:
    sgd = keras.optimizers.SGD
    for options, said in (
        ({"gradient_predivide_factor": 2.0, "op": hvd.Sum}, "needs op=Average"),
        ({"groups": 0}, "above 0"),
        ({"backward_passes_per_step": 0}, "1 or more"),
        ({"process_set": hvd.ProcessSet([0])}, "not known to Horovod yet"),
    ):
        with pytest.raises(ValueError, match=said):
            hvd.DistributedOptimizer(sgd(), **options)
    with pytest.raises(ValueError, match="give one of the two"):
        hvd.DistributedOptimizer(sgd(gradient_accumulation_steps=2), backward_passes_per_step=2)
    with pytest.raises(ValueError, match="another norm"):
        hvd.DistributedOptimizer(
            sgd(global_clipnorm=1.0), local_variables=[keras.Variable(np.zeros(1))]
        )
    with pytest.warns(DeprecationWarning, match="groups"):
        hvd.DistributedOptimizer(sgd(), num_groups=2)


def test_a_distributed_optimizer_is_not_wrapped_twice(world: World) -> None:
    once = hvd.DistributedOptimizer(keras.optimizers.SGD(0.1))
    for twice in (once, keras.optimizers.LossScaleOptimizer(once)):
        with pytest.raises(ValueError, match="distributed already"):
            hvd.DistributedOptimizer(twice)


def test_horovods_positional_order_holds(world: World) -> None:
    optimizer = hvd.DistributedOptimizer(
        keras.optimizers.SGD(1.0),
        "mine",
        "",
        "",
        hvd.Compression.none,
        True,
        1.0,
        hvd.Sum,
        2,
        True,
        0,
        None,
    )
    variable = keras.Variable(np.zeros(1, "float32"))
    for _ in range(2):
        optimizer.apply([tf.constant([1.0])], [variable])
    assert float(variable.numpy()[0]) == -world.size


# Files


def test_the_configuration_makes_another_distributed_optimizer(world: World) -> None:
    optimizer = hvd.DistributedOptimizer(keras.optimizers.Adam(0.02, use_ema=True))
    for copy in (
        optimizer.from_config(optimizer.get_config()),
        type(optimizer).from_config(optimizer.get_config()),
    ):
        assert copy.get_config() == optimizer.get_config()
        variable = keras.Variable(np.zeros(1, "float32"))
        copy.apply([tf.constant([float(world.rank)])], [variable])
        assert _spread(world, [variable]) == 1


def test_an_optimizer_that_has_trained_is_distributed_with_its_state(world: World) -> None:
    for make in (_adam(), _loss_scale(gradient_accumulation_steps=2), _multi):
        variables, optimizer = _variables(), make()
        optimizer.build(variables)
        optimizer.apply([tf.ones(variable.shape) for variable in variables], variables)
        copy = hvd.DistributedOptimizer(optimizer)
        assert len(copy.variables) == len(optimizer.variables)
        for a, b in zip(copy.variables, optimizer.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_table(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what the cases above measured; it makes no claim of its own."""
    assert TABLE
    if world.is_root:
        lines = [
            f"{world.size} ranks against one process: largest difference of a weight, sets of"
            " weights the ranks hold"
        ]
        lines += [
            f"  {name:60} {difference:.1e} {spread}" for name, (difference, spread) in TABLE.items()
        ]
        with capsys.disabled():
            sys.stdout.write("\n" + "\n".join(lines) + "\n")
