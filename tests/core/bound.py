"""Components that the tests of ``bind`` and ``check`` name in configs, as a ``--plugin`` file: ``bound:reader``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from antmmf.contracts import Assets, Clip, ContrastiveLoss, FrameReader, Pick, Sampler, Source, VisionEncoder
from antmmf.errors import ConfigError, DataError
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from decimal import Decimal


class Base:
    """What makes a class a reader."""

    def read(self, source: Source, pick: Pick) -> Clip:
        raise NotImplementedError


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = 2


class Reader(Base):
    """A parameter of every kind; ``copy`` is called like a method of pydantic's models."""

    def __init__(
        self,
        *,
        path: Path,
        count: Annotated[int, Field(gt=0)] = 1,
        rate: float = 0.5,
        mode: Literal["a", "b"] = "a",
        flag: bool = False,
        name: str | None = None,
        pair: tuple[int, float] = (1, 2.0),
        many: list[str] | None = None,
        table: dict[str, int] | None = None,
        group: Group = Group(),  # noqa: B008  # frozen
        either: int | Literal["auto"] = "auto",
        copy: bool = True,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}


class Outer(Base):
    """Blocks inside of a block."""

    def __init__(
        self,
        *,
        inner: FrameReader | str = "bound:plain",
        sampler: Annotated[Sampler, "annotated"] | None = None,
        loss: ContrastiveLoss,
    ) -> None:
        self.inner, self.sampler, self.loss = inner, sampler, loss


class Fails(Base):
    """A constructor that refuses."""

    def __init__(self, *, kind: Literal["data", "config", "defect"]) -> None:
        if kind == "data":
            raise DataError("the folder is empty")
        if kind == "config":
            raise ConfigError("two things do not fit")
        raise ZeroDivisionError


class Positional(Base):
    def __init__(self, path: Path) -> None: ...


class Anything(Base):
    def __init__(self, **kwargs: Any) -> None: ...


class Untyped(Base):
    def __init__(self, *, path) -> None: ...  # type: ignore[no-untyped-def]


class NotImported(Base):
    def __init__(self, *, number: Decimal) -> None: ...


class NoYaml(Base):
    def __init__(self, *, number: object, other: Base) -> None: ...


class TakesVision(Base):
    def __init__(self, *, vision: VisionEncoder) -> None: ...


class Encoder:
    """A visual encoder that gets the run's assets."""

    def __init__(self, *, dim: int = 8, assets: Assets) -> None:
        self.dim, self.assets = dim, assets

    def __call__(self) -> None: ...

    def blocks(self) -> list[Any]:
        return []


def loss(*, weight: float = 1.0) -> Any:
    """A component may be a function."""
    return ("loss", weight)


ANTMMF_COMPONENTS = {
    "readers": {
        "plain": Base,
        "reader": Reader,
        "outer": Outer,
        "fails": Fails,
        "positional": Positional,
        "anything": Anything,
        "untyped": Untyped,
        "not_imported": NotImported,
        "no_yaml": NoYaml,
        "takes_vision": TakesVision,
    },
    "vision_encoders": {"encoder": Encoder},
    "losses": {"loss": loss},
}
