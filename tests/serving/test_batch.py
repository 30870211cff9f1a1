import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.errors import DataError, StorageError
from trimodal.models import TrimodalModel
from trimodal.testing import assert_close
from trimodal_serving.app import create_app
from trimodal_serving.batch import answered, read_lines, run_batch
from trimodal_serving.engine import Engine
from trimodal_serving.routes import ROUTES


def request(number: int, **body: Any) -> str:
    whole = {"model": "tiny", "input": f"{number} red", **body}
    line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/embeddings", "body": whole}
    return json.dumps(line) + "\n"


def run(model: TrimodalModel, source: Path, target: Path) -> tuple[int, int]:
    async def main() -> tuple[int, int]:
        engine = Engine(lambda: model)
        app = create_app({"tiny": engine}, 1 << 20)
        await engine.start()
        try:
            return await run_batch(app, source, target, concurrency=4)
        finally:
            await engine.close()

    return asyncio.run(main())


def test_answers_come_in_order_and_a_second_run_goes_on(
    model: TrimodalModel, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(request(i) for i in range(9)) + request(9, model="other"))
    assert run(model, source, target) == (10, 1)
    whole = target.read_text().splitlines()
    trees = [json.loads(line) for line in whole]
    assert [tree["custom_id"] for tree in trees] == [f"r{i}" for i in range(10)]
    vectors = [tree["response"]["body"]["data"][0]["embedding"] for tree in trees[:9]]
    expected = model.embed(text=[f"{i} red" for i in range(9)])["text"]
    assert_close(np.array(vectors, dtype=np.float32), expected, "served-vs-offline")
    assert trees[9]["response"]["status_code"] == 404
    assert trees[9]["response"]["body"]["error"]["code"] == "model_not_found"
    target.write_text("\n".join(whole[:3]) + "\n" + whole[3][:40])  # killed within a line
    assert run(model, source, target) == (7, 1)
    ids = [json.loads(line)["custom_id"] for line in target.read_text().splitlines()]
    assert ids == [f"r{i}" for i in range(10)]
    assert run(model, source, target) == (0, 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        (json.dumps({"url": "/v1/embeddings", "body": {}}), "custom_id"),
        (json.dumps({"custom_id": "a", "url": "http://x", "body": {}}), "url"),
        (json.dumps({"custom_id": "a", "url": "/v1", "body": {}, "method": "GET"}), "method"),
        (json.dumps({"custom_id": "a", "url": "/v1/embedings", "body": {}}), "url must be a path"),
        (json.dumps({"custom_id": "a", "url": "/v1/models", "body": {}}), "url must be a path"),
        (json.dumps({"custom_id": "a", "url": "/v1/search", "body": {}}), "needs no index"),
        (json.dumps({"custom_id": "a", "url": "/embed", "body": {"stream": True}}), "stream"),
        (
            json.dumps({"custom_id": "a", "url": "/embed", "body": {"stream_format": "sse"}}),
            "stream",
        ),
        (request(1).strip(), "twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, problem: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(request(1) + "\n" + text + "\n")
    with pytest.raises(DataError, match=f"in.jsonl:3: .*{problem}"):
        list(read_lines(source))


def test_all_paths_that_need_no_index_may_be_asked(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    posted = {route.path for route in ROUTES if route.method == "POST"} - {"/v1/search"}
    urls = [path.replace("{model:path}", "a/b") for path in posted if "/indexes" not in path]
    lines = [{"custom_id": url, "url": url, "body": {}} for url in urls]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line.url for line in read_lines(source)] == urls
    assert len(urls) > 10


def test_a_file_that_is_no_answers_is_not_added_to(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    assert answered(target) == set()
    target.write_text('{"id": 3}\n')
    with pytest.raises(StorageError, match=r"out\.jsonl:1: no answer of a batch"):
        answered(target)
    assert target.read_text() == '{"id": 3}\n'
