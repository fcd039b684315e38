"""Horovod's names that work under Keras 3 as they are: reductions, ranks, builds, process sets."""

from hvd_xai.errors import HorovodMissingError

try:
    import horovod.tensorflow as horovod
except ImportError as _error:
    raise HorovodMissingError(
        f"Horovod is not installed or does not load ({_error}). Build it with: hvd-xai"
        " install-horovod"
    ) from _error

Average = horovod.Average
Sum = horovod.Sum
Adasum = horovod.Adasum
Min = horovod.Min
Max = horovod.Max
Product = horovod.Product
Compression = horovod.Compression

rank = horovod.rank
size = horovod.size
local_rank = horovod.local_rank
local_size = horovod.local_size
cross_rank = horovod.cross_rank
cross_size = horovod.cross_size
is_homogeneous = horovod.is_homogeneous
is_initialized = horovod.is_initialized
shutdown = horovod.shutdown

start_timeline = horovod.start_timeline
stop_timeline = horovod.stop_timeline

mpi_built = horovod.mpi_built
mpi_enabled = horovod.mpi_enabled
mpi_threads_supported = horovod.mpi_threads_supported
gloo_built = horovod.gloo_built
gloo_enabled = horovod.gloo_enabled
nccl_built = horovod.nccl_built
ddl_built = horovod.ddl_built
ccl_built = horovod.ccl_built
cuda_built = horovod.cuda_built
rocm_built = horovod.rocm_built

ProcessSet = horovod.ProcessSet
global_process_set = horovod.global_process_set
add_process_set = horovod.add_process_set
remove_process_set = horovod.remove_process_set

allgather_object = horovod.allgather_object
broadcast_object = horovod.broadcast_object
