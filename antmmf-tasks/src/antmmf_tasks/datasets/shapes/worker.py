"""A process that makes a share of the clips: one JSON argument in, one line a finished clip out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from antmmf_tasks.datasets.shapes.write import write_share


def main(argument: str) -> None:
    """Run ``write_share`` with the arguments that ``write.py`` sent."""
    arguments = json.loads(argument)
    for name in write_share(Path(arguments.pop("folder")), **arguments):
        sys.stdout.write(name + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
