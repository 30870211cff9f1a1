"""That everything the routes may be given is what they ask for."""

import inspect

import pytest

from trimodal_serving.engine import Engine
from trimodal_serving.metering import Metered
from trimodal_serving.remote import RemoteEngine
from trimodal_serving.service import Service

MEMBERS = sorted(name for name in vars(Service) if not name.startswith("_"))


def test_the_protocol_has_members() -> None:
    assert {"embed", "generate", "stream", "encode", "decode", "signature"} <= set(MEMBERS)


@pytest.mark.parametrize("kind", [Engine, RemoteEngine, Metered])
@pytest.mark.parametrize("name", MEMBERS)
def test_every_service_has_every_member(kind: type, name: str) -> None:
    asked, given = vars(Service)[name], vars(kind)[name]
    assert type(given) is type(asked)
    if callable(asked):
        wanted = list(inspect.signature(asked).parameters)
        assert list(inspect.signature(given).parameters)[: len(wanted)] == wanted
        for later in list(inspect.signature(given).parameters.values())[len(wanted) :]:
            assert later.default is not inspect.Parameter.empty
