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


def write(path: Path, url: str = "/v1/embeddings", **models: str) -> None:
    lines = [
        {"custom_id": name, "url": url, "body": {"model": model, "input": "red"}}
        for name, model in models.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_file_is_answered(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, a="tiny")
    arguments = [str(source), str(target), "--model", str(model_folder), "--name", "tiny"]
    assert run(*arguments) == 0
    assert capsys.readouterr().out == f"{target}: 1 of 1 requests answered\n"
    assert json.loads(target.read_text())["response"]["status_code"] == 200
    assert run(str(source), str(target), "--model", "nowhere") == 0, "nothing is left to do"
    assert capsys.readouterr().out == f"{target}: 0 of 1 requests answered, 1 were before\n"


def test_answers_that_are_errors_are_an_exit_code_also_of_a_run_before(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, a="tiny", b="other", c="none")
    arguments = [str(source), str(target), "--model", str(model_folder), "--name", "tiny"]
    assert run(*arguments) == 65
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{target}: 3 of 3 requests answered"
    assert second.startswith("errors among the answers: 2, the first of b: 404 ")
    assert third == f"what is taken out of {target} is asked again by the same command"
    assert run(*arguments) == 65
    again = capsys.readouterr().out.splitlines()
    assert again == [f"{target}: 0 of 3 requests answered, 3 were before", second, third]
    write(source, a="tiny")
    assert run(*arguments) == 0, "answers to other files do not count"


def test_mistakes_are_found_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    assert run(str(source), str(source), "--model", "nowhere") == 64
    assert run(str(source), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 65
    assert "in.jsonl:1: custom_id" in capsys.readouterr().err
    assert run(str(tmp_path / "none"), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 65
    assert "none cannot be read: there is no such file" in capsys.readouterr().err
    write(source, url="/v1/embedings", a="tiny")
    assert run(str(source), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 65
    assert "in.jsonl:1: url must be a path" in capsys.readouterr().err
    source.write_text("\n")
    assert run(str(source), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 65
    assert "in.jsonl has no requests" in capsys.readouterr().err
    write(source, a="tiny")
    assert run(str(source), str(tmp_path / "out.jsonl"), "--model", "nowhere") == 64
    assert "nowhere is not a model folder" in capsys.readouterr().err
    assert run(str(source), str(tmp_path / "no" / "out.jsonl"), "--model", "nowhere") == 64
    assert "there is no folder" in capsys.readouterr().err
