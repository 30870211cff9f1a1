"""A request as those see it who answer it, without a web library.

reply = await answer(Call(engine, "demo", body=b'{"model": "demo", "input": "a dog"}'))
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimodal_serving.fields import Fields, check_json, parse_json
from trimodal_serving.replies import Reply

if TYPE_CHECKING:
    from trimodal_serving.index_folders import IndexFolders
    from trimodal_serving.service import Service


@dataclass(frozen=True)
class Call:
    """One request, whose body has arrived."""

    engine: "Service"
    served: str
    """What clients call the model."""
    check: Callable[[], None] = lambda: None
    """Returns if all models of the server answer, otherwise raises `ServingError`."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in small letters."""
    path: Mapping[str, str] = field(default_factory=dict)
    """What stands in the path where the route has a name."""
    indexes: "IndexFolders | None" = None
    """None if the server keeps none."""

    def fields(self) -> Fields:
        """The body as a JSON object, slow if it is large.

        Raises:
            ServingError: it is none, or declared as something else.
        """
        check_json(self.headers.get("content-type", ""))
        return Fields(parse_json(self.body))


Handler = Callable[[Call], Coroutine[None, None, Reply]]
"""Raises `ServingError` for what cannot be served."""
