"""An elastic training that explains itself, and what befalls it.

`elastic.py RUN HOSTS [EVENT ...]`.

HOSTS is the file that the launcher's discovery script prints. An event is `EPOCH:SIZE:WHAT-OF`, for
an epoch that is trained by so many ranks: in its middle rank OF does `kill`, `raise` or `exit` to
itself; at its end the root does `add-HOST` or `remove-RANK` to the file, and waits until the
launcher has noticed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import xxhash

import hvd_xai.keras as hvd
from hvd_xai import Explain, Probe
from hvd_xai.keras.elastic import KerasState

EPOCHS, BATCH = 6, 8
HOST = os.environ["HOROVOD_HOSTNAME"]
NOTICE_SECONDS = 600


class Count(keras.layers.Layer):  # type: ignore[misc]  # keras ships no types
    """Counts steps in a weight whose gradient is 1 at every step, on every rank."""

    def build(self, shape: object) -> None:
        """Makes the weight."""
        self.count = self.add_weight(name="count", shape=(), initializer="zeros")

    def call(self, x: object) -> object:
        """Passes `x` through."""
        self.add_loss(1.0 * self.count)
        return x


class Events(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Does to the job what its events say."""

    def __init__(self, state: KerasState, hosts: Path, events: list[str]) -> None:
        super().__init__()
        self._state, self._hosts = state, hosts
        self._events = [event.replace("-", ":").split(":") for event in events]
        self._epoch = 0

    def _now(self) -> list[tuple[str, str]]:
        return [
            (what, of)
            for epoch, size, what, of in self._events
            if (int(epoch), int(size)) == (self._epoch, world.size)
        ]

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Does the events of the middle of an epoch, between commits."""
        for what, rank in self._now():
            if batch == 2 and rank == str(world.rank):
                if what == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if what == "exit":
                    sys.exit(0)
                if what == "raise":
                    raise RuntimeError(f"rank {rank} has had enough")

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Does the events of the end of an epoch, before it is committed."""
        weights = self.model.get_weights()
        digest = xxhash.xxh3_64_hexdigest(b"".join(weight.tobytes() for weight in weights))
        n_traces = (
            sum(compute.n_traces for compute in explain._runner.compiled.computes.values())
            if explain._runner
            else 0
        )
        say(epoch=epoch, step=int(self.model.optimizer.iterations), weights=digest, traces=n_traces)
        if world.is_root:
            np.savez(self._hosts.with_name(f"weights-{epoch}.npz"), *weights)
        changes = [(what, of) for what, of in self._now() if what in ("add", "remove")]
        if not changes:
            return
        hosts = [str(host) for host in world.allgather("testing", HOST)]
        if not world.is_root:
            return
        listed = set(self._hosts.read_text().split())
        for what, of in changes:
            listed = listed | {f"{of}:1"} if what == "add" else listed - {f"{hosts[int(of)]}:1"}
        self._hosts.write_text("".join(f"{line}\n" for line in sorted(listed)))
        waited = time.monotonic()
        while self._state._host_messages.empty() and time.monotonic() - waited < NOTICE_SECONDS:
            time.sleep(0.05)


def say(**values: object) -> None:
    """Writes a line that the test reads."""
    line = {"host": HOST, "rank": world.rank, "size": world.size, **values}
    sys.stdout.write(f"said {json.dumps(line)}\n")


run, hosts, *events = sys.argv[1:]
world = hvd.init()
# whoever joins has other weights until he is synchronised
keras.utils.set_random_seed(int(time.time()))
random = np.random.default_rng(0)
inputs, targets = (
    random.normal(size=(96, 4, 4, 1)).astype("float32"),
    random.integers(0, 3, 96).astype("int32"),
)
model = keras.Sequential(
    [
        keras.Input((4, 4, 1)),
        keras.layers.Conv2D(2, 3),
        keras.layers.Flatten(),
        Count(),
        keras.layers.Dense(3),
    ]
)
model.compile(
    hvd.DistributedOptimizer(keras.optimizers.SGD(2**-7, momentum=0.5)),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
state = KerasState(model, epoch=0, batch=0, begun=[])
explain = Explain(
    Probe(inputs[:11], targets[:11]),
    ["integrated_gradients", "grad_cam"],
    world=world,
    run=run,
)


@hvd.elastic.run
def train(state: KerasState) -> None:
    """Trains from where the state stands."""
    state.begun = [*state.begun, [state.epoch, state.batch, world.size]]
    mine = hvd.shard(inputs, targets, world=world)
    callbacks = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(),
        hvd.elastic.UpdateBatchStateCallback(state),
        explain,
        Events(state, Path(hosts), events),
        hvd.elastic.UpdateEpochStateCallback(state),
        hvd.elastic.CommitStateCallback(state, batches_per_commit=2),
    ]
    model.fit(
        *mine,
        batch_size=BATCH,
        shuffle=False,
        initial_epoch=state.epoch,
        epochs=EPOCHS,
        verbose=0,
        callbacks=callbacks,
    )


train(state)
count = float(
    np.asarray(
        next(variable.value for variable in model.variables if variable.path.endswith("count"))
    )
)
say(ended=True, step=int(model.optimizer.iterations), count=count, begun=state.begun)
