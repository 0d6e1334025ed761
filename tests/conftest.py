"""For all tests: one thread, a cache of their own, none of the caller's settings, and this folder on the path for
``fake_hub``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Before torch is imported anywhere: the machines have few cores, and small tensors gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Worker processes and command lines that tests start inherit these. ANTMMF_TEST_CACHE keeps what was made.
KEPT = os.environ.get("ANTMMF_TEST_CACHE")
CACHE = os.environ["ANTMMF_CACHE"] = KEPT or tempfile.mkdtemp(prefix="antmmf-test-cache-")
for name in ("ANTMMF_DISABLE_PLUGINS", "ANTMMF_DEBUG"):
    os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    """Remove the cache when the last test is done."""
    if not KEPT:
        shutil.rmtree(CACHE, ignore_errors=True)
