"""Trains on while hosts are lost and join: from the last commit, with the ranks that there are.

Start it with a script that prints one `host:slots` a line whenever it is asked:

    horovodrun --gloo -np 2 --min-np 1 --max-np 4 --host-discovery-script ./hosts.sh python train.py

Horovod wants at least two host names, or `--network-interfaces`. In `train.py`:

    world = hvd.init()
    model = build()  # compiled with a DistributedOptimizer, the same on every rank
    state = hvd.elastic.KerasState(model, epoch=0, batch=0)
    explain = Explain(probe, ["integrated_gradients"], world=world, run="runs/elastic")

    @hvd.elastic.run
    def train(state):
        x, y = hvd.shard(x_train, y_train, world=world)  # cut for the ranks of now
        callbacks = [
            hvd.callbacks.BroadcastGlobalVariablesCallback(),
            hvd.elastic.UpdateBatchStateCallback(state),
            explain,
            hvd.elastic.UpdateEpochStateCallback(state),
            hvd.elastic.CommitStateCallback(state, batches_per_commit=10),
        ]
        model.fit(x, y, initial_epoch=state.epoch, epochs=20, callbacks=callbacks)

    train(state)

When a host is lost, the collective that the other ranks are in fails. They go back to the last
commit, meet anew, take the root's state, and call the function again. When the discovery script
lists other hosts, all ranks hear of it at their next commit, and nothing is lost. A rank that joins
late takes the root's state before it trains.

`world` is the same object throughout and always has the ranks of now. So cut data by rank inside
the function, and make callbacks there that look at the number of ranks.
`state.register_reset_callbacks` takes functions that are called after each change, for example to
scale the learning rate.

A rank that ends with an error of its own is no lost host: it ends the job with its error, as it
does everywhere in this library. (Horovod's own wrapper goes on without that rank; and where the
gradients are reduced in one group, it takes a lost host for the end of training.)

`Explain` shares the probe out anew among the ranks of now whenever training begins, and goes on in
the run directory that the job began; an epoch that is trained again replaces the explanations that
it had left. Give `fit` the epoch as above, `initial_epoch=state.epoch` and `epochs` in all, so that
explanations are filed under the right epoch. Commit last, after `Explain`: an epoch is done when it
is explained.

Horovod decides the following. A host whose rank died is not used again, unless
`--blacklist-cooldown-range` says so. Of three ranks or more, the ranks that were not sending to the
lost one at that moment notice when Gloo gives up, after `HOROVOD_GLOO_TIMEOUT_SECONDS` (30). A rank
that is stuck, neither dead nor going on, is no lost host: it ends the job once the others have
waited for it as long as `HVD_XAI_DEADLINE` says.
"""

from hvd_xai.keras.elastic.callbacks import (
    CommitStateCallback,
    UpdateBatchStateCallback,
    UpdateEpochStateCallback,
)
from hvd_xai.keras.elastic.run import run
from hvd_xai.keras.elastic.state import KerasState

__all__ = [
    "CommitStateCallback",
    "KerasState",
    "UpdateBatchStateCallback",
    "UpdateEpochStateCallback",
    "run",
]
