"""On whose behalf something is computed, and what it has used; known to all that a request calls.

with acting(Caller("alice")) as caller: await engine.embed(inputs)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from trimodal_serving.quotas import Quota

Priority = Literal["interactive", "bulk"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
Flow = tuple[Priority, str]
PRICES: dict[str, float] = {"interactive": 1.0, "bulk": 8.0}
"""While both wait, bulk gets a ninth."""
ANYBODY = "anonymous"
"""The tenant where there are no keys."""


@dataclass
class Usage:
    """What was computed for a request, both what was read and what was made."""

    tokens: int = 0
    pixels: int = 0
    """Of pictures as the model sees or draws them."""
    audio_seconds: float = 0.0

    def add(self, other: "Usage") -> None:
        """Count what was used besides."""
        self.tokens += other.tokens
        self.pixels += other.pixels
        self.audio_seconds += other.audio_seconds


@dataclass
class Caller:
    """Who asks."""

    tenant: str = ANYBODY
    key_id: str | None = None
    priority: Priority = "interactive"
    usage: Usage = field(default_factory=Usage)
    request_id: str = ""
    generates: bool = False
    """Whether outputs are asked for, and not vectors."""
    cost: int = 0
    """Tokens that are computed, as far as is known; what one who leaves before the end has used."""
    on_cost: Callable[[int], None] | None = None
    """Told the tokens that the request costs, once they are known."""
    on_bytes: Callable[[int], None] | None = None
    """Told of bytes fetched for the request as they arrive; raises if there is no room."""
    quota: "Quota | None" = None
    """What the request entered and has to leave; its key may have another by then."""

    @property
    def flow(self) -> Flow:
        """What takes turns with others."""
        return self.priority, self.tenant


_current: ContextVar[Caller] = ContextVar("caller")


def current() -> Caller:
    """Whoever the running task works for."""
    caller = _current.get(None)
    return Caller() if caller is None else caller


@contextmanager
def acting(caller: Caller) -> Iterator[Caller]:
    """Work for a caller, in this task and in those that it starts."""
    token = _current.set(caller)
    try:
        yield caller
    finally:
        _current.reset(token)
