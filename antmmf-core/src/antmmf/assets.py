"""What a model was made from and cannot do without: kept by the run, saved in every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from antmmf.contracts import Json


class RunAssets:
    """The assets of one run (``antmmf.contracts.Assets``): those of the checkpoint, else made from training texts."""

    def __init__(self, saved: Mapping[str, Json] | None = None, *, texts: Callable[[], Iterator[str]]) -> None:
        self._values: dict[str, Json] = dict(saved or {})
        self._texts = texts

    def get(self, name: str, make: Callable[[Iterator[str]], Json]) -> Json:
        """The asset called ``name``; made from the training texts when no checkpoint brought it."""
        if name not in self._values:
            self._values[name] = make(self._texts())
        return self._values[name]

    def values(self) -> Mapping[str, Json]:
        """All assets so far, as they are saved."""
        return dict(self._values)
