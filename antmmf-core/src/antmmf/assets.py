"""What a model was made from and cannot do without: kept by the run, saved in every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from antmmf.contracts import Json

ANSWERS = "answers"


class RunAssets:
    """The assets of one run (``antmmf.contracts.Assets``): those ``saved`` in the checkpoint, else made from training
    data, or ``made`` already by another process."""

    def __init__(
        self,
        saved: Mapping[str, Json] | None = None,
        *,
        texts: Callable[[], Iterator[str]],
        answers: Callable[[], Iterator[str]] = lambda: iter(()),
        made: Mapping[str, Json] | None = None,
    ) -> None:
        self._restored = frozenset(saved or ())
        self._values: dict[str, Json] = {**(made or {}), **(saved or {})}
        self._texts = texts
        self._answers = answers

    def get(self, name: str, make: Callable[[Iterator[str]], Json]) -> Json:
        """The asset called ``name``; made from the training texts when no checkpoint brought it."""
        return self._get(name, make, self._texts)

    def of_answers(self, make: Callable[[Iterator[str]], Json]) -> Json:
        """The asset ``answers``, made from those of the training questions; a run that only takes the weights of a
        checkpoint makes it anew."""
        return self._get(ANSWERS, make, self._answers)

    def restored(self, name: str) -> bool:
        """Whether a checkpoint brought the asset."""
        return name in self._restored

    def _get(self, name: str, make: Callable[[Iterator[str]], Json], source: Callable[[], Iterator[str]]) -> Json:
        if name not in self._values:
            self._values[name] = make(source())
        return self._values[name]

    def values(self) -> Mapping[str, Json]:
        """All assets so far, as they are saved."""
        return dict(self._values)
