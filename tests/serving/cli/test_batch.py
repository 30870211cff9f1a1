import argparse
import json
from pathlib import Path

import pytest

from trimodal.cli import guarded
from trimodal_serving.cli.batch import COMMAND


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: COMMAND.run(options))


def test_a_file_is_answered(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": "tiny", "input": "red"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": body}
    source.write_text(json.dumps(line) + "\n")
    arguments = [str(source), str(target), "--model", str(model_folder), "--name", "tiny"]
    assert run(*arguments) == 0
    assert capsys.readouterr().out == f"{target}: 1 answered, 0 of them with an error\n"
    assert json.loads(target.read_text())["response"]["status_code"] == 200


def test_mistakes_are_found_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    assert run(str(source), str(source), "--model", "nowhere") == 64
    assert run(str(source), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 65
    assert "in.jsonl:1: custom_id" in capsys.readouterr().err
