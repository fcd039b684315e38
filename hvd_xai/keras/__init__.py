"""Horovod for Keras 3: the names of `horovod.tensorflow.keras`, working with today's Keras.

`import hvd_xai.keras as hvd` ports a script. Importing it needs TensorFlow and Horovod.
"""

import os

from hvd_xai.ranks.launcher import launched_rank

# TensorFlow reads this once, when it is loaded: below, unless the script has loaded it before. What
# it tells of the machine then comes from the root, and not once a rank. Errors come from all.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if launched_rank(os.environ) else "0")

from hvd_xai.keras import callbacks, elastic
from hvd_xai.keras.batch_normalization import SyncBatchNormalization
from hvd_xai.keras.collectives import (
    allgather,
    allreduce,
    broadcast,
    broadcast_global_variables,
    broadcast_variables,
    reducescatter,
)
from hvd_xai.keras.endless_batches import batches, join_batches
from hvd_xai.keras.equal_steps import agree_steps
from hvd_xai.keras.horovod_names import (
    Adasum,
    Average,
    Compression,
    Max,
    Min,
    ProcessSet,
    Product,
    Sum,
    add_process_set,
    allgather_object,
    broadcast_object,
    ccl_built,
    cross_rank,
    cross_size,
    cuda_built,
    ddl_built,
    global_process_set,
    gloo_built,
    gloo_enabled,
    is_homogeneous,
    is_initialized,
    local_rank,
    local_size,
    mpi_built,
    mpi_enabled,
    mpi_threads_supported,
    nccl_built,
    rank,
    remove_process_set,
    rocm_built,
    shutdown,
    size,
    start_timeline,
    stop_timeline,
)
from hvd_xai.keras.model_files import load_model
from hvd_xai.keras.optimizer import DistributedOptimizer, PartialDistributedOptimizer
from hvd_xai.keras.sharding import shard
from hvd_xai.keras.start import init
from hvd_xai.keras.tape import DistributedGradientTape, PartialDistributedGradientTape

__all__ = [
    "Adasum",
    "Average",
    "Compression",
    "DistributedGradientTape",
    "DistributedOptimizer",
    "Max",
    "Min",
    "PartialDistributedGradientTape",
    "PartialDistributedOptimizer",
    "ProcessSet",
    "Product",
    "Sum",
    "SyncBatchNormalization",
    "add_process_set",
    "agree_steps",
    "allgather",
    "allgather_object",
    "allreduce",
    "batches",
    "broadcast",
    "broadcast_global_variables",
    "broadcast_object",
    "broadcast_variables",
    "callbacks",
    "ccl_built",
    "cross_rank",
    "cross_size",
    "cuda_built",
    "ddl_built",
    "elastic",
    "global_process_set",
    "gloo_built",
    "gloo_enabled",
    "init",
    "is_homogeneous",
    "is_initialized",
    "join_batches",
    "load_model",
    "local_rank",
    "local_size",
    "mpi_built",
    "mpi_enabled",
    "mpi_threads_supported",
    "nccl_built",
    "rank",
    "reducescatter",
    "remove_process_set",
    "rocm_built",
    "shard",
    "shutdown",
    "size",
    "start_timeline",
    "stop_timeline",
]
