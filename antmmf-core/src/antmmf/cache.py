"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where indexes, made data and decoded frames live: ``$ANTMMF_CACHE``, else ``~/.cache/antmmf``."""
    return Path(os.environ.get("ANTMMF_CACHE") or "~/.cache/antmmf").expanduser()
