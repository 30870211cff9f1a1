import json
import os
from pathlib import Path

import pytest

from trimodal.errors import StorageError
from trimodal_serving import ledger as module
from trimodal_serving.access import SCOPE_OF
from trimodal_serving.caller import Caller, Usage
from trimodal_serving.ledger import Ledger, UsageLog, Visit, route_of
from trimodal_serving.metrics import Metrics


def test_a_line_for_each_request_that_was_let_in(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    ledger = Ledger(Metrics(), UsageLog(path))
    caller = Caller("alice", "abcd", usage=Usage(7, 64, 1.25))
    ledger.answered(Visit("r1", "/v1/embeddings", caller, 200, None, 0.5))
    ledger.answered(Visit("r2", "/v1/embeddings", None, 401, "missing_api_key", 0.1))
    ledger.answered(Visit("r3", "/livez", Caller(), 200))
    (line,) = path.read_text().splitlines()
    tree = json.loads(line)
    assert tree.pop("time")
    assert tree == {
        "request_id": "r1",
        "tenant": "alice",
        "key": "abcd",
        "priority": "interactive",
        "route": "/v1/embeddings",
        "status": 200,
        "code": None,
        "seconds": 0.5,
        "tokens": 7,
        "pixels": 64,
        "audio_seconds": 1.25,
    }
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_labels_are_the_server_s_own() -> None:
    assert {route_of(path) for path in SCOPE_OF} == set(SCOPE_OF)
    assert route_of("/v1/models/whatever/\n") == "/v1/models/{name}"
    assert {route_of(path) for path in ("/nowhere", "//livez", "")} == {"other"}


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        UsageLog(tmp_path)


def test_a_full_disk_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    log = UsageLog("/dev/full")
    for _ in range(3):
        log.write(Visit("r", "/v1/embeddings", Caller()), Caller())
    assert [record.getMessage() for record in caplog.records] == [
        "the usage log cannot be written: No space left on device"
    ]


def test_a_crowd_is_counted_and_makes_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Metrics())
    for _ in range(1000):
        ledger.turned_away("overloaded")
        ledger.turned_away("bad_http")
    monkeypatch.setattr(module, "COMPLAINT_SECONDS", 0.0)
    ledger.turned_away("overloaded")
    series = ledger.metrics.render().decode()
    assert 'trimodal_rejected_total{reason="overloaded"} 1001.0' in series
    assert 'trimodal_rejected_total{reason="bad_http"} 1000.0' in series
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(" ")[2] for line in lines] == ["1", "1000"]
    assert all(line.startswith("connections refused") for line in lines)
