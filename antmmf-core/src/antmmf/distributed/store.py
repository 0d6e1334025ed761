"""The key-value store that the launcher offers to all processes of a run."""

from __future__ import annotations

import os

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from antmmf.distributed.environment import ranks, restarts


def shared_store() -> Store:
    """A new connection to the store of this run's processes; what an earlier attempt left there is not seen.

    torchrun's agent keeps its store over restarts, and with it the addresses of processes that are dead by then
    (torch 2.13 believes that it does not): a process group that reads them waits for connections that never come.
    Where rank 0 opens a store of its own, as for several machines, it is a new one: their agents count restarts each
    for itself, so that a prefix would part them.
    """
    own = ranks()
    store, _, _ = next(rendezvous("env://", own.rank, own.size))
    is_kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    return PrefixStore(f"attempt{restarts()}", store) if is_kept else store
