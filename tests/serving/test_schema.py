"""Requests made up from /openapi.json, sound and unsound: no 5xx, and every answer as described.

SCHEMA_CASES=1000 pytest tests/serving/test_schema.py
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from trimodal.models import TrimodalModel
from trimodal_serving.engine import Engine
from trimodal_serving.openapi import document

CASES = int(os.environ.get("SCHEMA_CASES", "30"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_dict(document("tiny"))


@pytest.fixture(scope="module")
def own_url(
    model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]
) -> Iterator[str]:
    """A server of its own, since indexes come and go."""
    with serve(Engine(lambda: model), indexes=tmp_path_factory.mktemp("indexes")) as server:
        yield server.wait_until_ready().url


@schema.parametrize()
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES <= 30,
    database=None,
    suppress_health_check=[
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
    ],
)
def test_made_up_requests(case: schemathesis.Case, own_url: str) -> None:
    case.call_and_validate(base_url=own_url, checks=CHECKS, timeout=60)
