"""The models of one server by their names, and which of them a request is for.

catalog = Catalog({"demo": service, "scenes": other}); model = await catalog.of(path, headers, body)
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimodal_serving.errors import ServingError, model_not_found
from trimodal_serving.fields import SMALL_BYTES, parse_json
from trimodal_serving.forms import parse_form
from trimodal_serving.service import Service, all_started


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    name: str
    """What clients call it."""
    service: Service


class Catalog:
    """One model or several; the first answers where a request has no word for a model."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        """Remember them; nothing happens before `start`.

        Args:
            services: by the names of their models, one at least.
        """
        self.models = [Model(name, service) for name, service in services.items()]

    @property
    def first(self) -> Model:
        """The one that is meant if none is named."""
        return self.models[0]

    def named(self, name: str) -> Model:
        """The model of a name.

        Raises:
            ServingError: there is none.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise model_not_found(*(model.name for model in self.models))

    async def of(self, path: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Model:
        """The model that a request is for.

        A server of several reads a body once more for this; what is wrong with it is said by
        whoever answers.

        Args:
            path: what stands in the path where its route has a name.
            headers: by their names in small letters.
            body: JSON or a form.

        Raises:
            ServingError: it names a model that is not served.
        """
        if "model" in path:
            return self.named(path["model"])
        if len(self.models) == 1 or not body:
            return self.first
        kind = headers.get("content-type", "")
        if len(body) <= SMALL_BYTES:
            name = _name(kind, body)
        else:
            name = await asyncio.to_thread(_name, kind, body)
        return self.named(name) if isinstance(name, str) else self.first

    async def start(self) -> None:
        """Load all models; see `Service.start` for what is raised."""
        await all_started(model.service.start() for model in self.models)

    def check(self) -> None:
        """Return if all models answer.

        Raises:
            ServingError: one does not.
        """
        for model in self.models:
            model.service.check()

    async def close(self) -> None:
        """Let what is inside finish for a while, then stop."""
        await asyncio.gather(*(model.service.close() for model in self.models))


def _name(kind: str, body: bytes) -> Any:
    """What a body calls its model, if it can be read."""
    try:
        if kind.lower().startswith("multipart/"):
            return dict(parse_form(kind, body, repeated=None).repeated).get("model")
        tree = parse_json(body)
    except ServingError:
        return None
    return tree.get("model") if isinstance(tree, dict) else None
