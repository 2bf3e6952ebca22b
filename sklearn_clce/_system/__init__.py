"""What the package asks of the machine: devices, processes, files, terminal and notebook."""

from .devices import (
    CPU,
    autocast,
    device_rng_state,
    highest_precision_dtype,
    own_torch,
    resolve_device,
    resolve_precision,
    seeded_torch,
    set_device_rng_state,
)
from .files import (
    FileState,
    Lock,
    digest_file,
    remove_unfinished,
    state_of,
    write_atomically,
)
from .joint_calls import agree, joint
from .locks import ProcessLock
from .parameter_table import TableMixin, groups_of
from .places import is_interactive
from .processes import (
    Parallel,
    SharedBatches,
    broadcast,
    gather,
    gather_objects,
    gpu_lock,
    is_main,
    loader_processes,
    local_gpu,
    n_processes,
    own_share,
    rank,
    share_buffers,
    shared,
    warn_if_not_joined,
)
from .progress import count, duration, time_left, warn, write_line
from .searches import own_search
from .status import bar, expect, is_due, note

__all__ = [
    "TableMixin",
    "groups_of",
    "warn",
    "CPU",
    "autocast",
    "own_torch",
    "device_rng_state",
    "highest_precision_dtype",
    "resolve_device",
    "resolve_precision",
    "seeded_torch",
    "set_device_rng_state",
    "FileState",
    "Lock",
    "digest_file",
    "remove_unfinished",
    "state_of",
    "write_atomically",
    "agree",
    "joint",
    "ProcessLock",
    "Parallel",
    "SharedBatches",
    "broadcast",
    "gather",
    "gather_objects",
    "gpu_lock",
    "is_main",
    "loader_processes",
    "local_gpu",
    "n_processes",
    "own_share",
    "rank",
    "share_buffers",
    "shared",
    "warn_if_not_joined",
    "bar",
    "count",
    "duration",
    "expect",
    "is_due",
    "is_interactive",
    "note",
    "own_search",
    "time_left",
    "write_line",
]
