import argparse
import json
from pathlib import Path

import pytest

from trimodal.cli import guarded
from trimodal.cli.evaluate import COMMAND
from trimodal.testing import (
    COLOURS,
    tiny_model,
    write_tiny_manifest,
)


def _run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return guarded(lambda: COMMAND.run(options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights in `model`, and `test.jsonl`."""
    folder = tmp_path_factory.mktemp("eval")
    tiny_model().save_pretrained(folder / "model")
    write_tiny_manifest(folder, rows=8, name="test")
    return folder


def test_table_and_json_tell_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "results.json"
    assert _run(folder / "model", "--data", folder / "test.jsonl", "--json", out) == 0
    results = json.loads(out.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("image->text "))
    assert line.split()[1] == f"{100 * results['retrieval']['image->text']['R@1']:.1f}"
    assert results["rows"] == 8


def test_prompts_and_budget_are_passed_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "names.json"
    prompts.write_text(json.dumps({word: {"en": [word]} for word in COLOURS}))
    data = ("--data", folder / "test.jsonl", "--token-budget", "64", "--prompts", prompts)
    assert _run(folder / "model", *data) == 0
    assert f"(prompts: {prompts})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere", "--data", "test.jsonl"), 64, "nowhere is not a model folder"),
        (("model", "--data", "nowhere.jsonl"), 65, "manifest nowhere.jsonl cannot be read"),
        (("model", "--data", "test.jsonl", "--json", "no/r.json"), 64, "there is no folder no"),
        (("model", "--data", "test.jsonl", "--prompts", "p.json"), 65, "p.json cannot be read"),
        (("no", "--data", "test.jsonl", "--json", "./test.jsonl"), 64, "would be written over"),
        (("no", "--data", "test.jsonl", "--json", "prompts.json"), 64, "would be written over"),
        (
            ("no", "--data", "test.jsonl", "--json", "p", "--prompts", "model/../p"),
            64,
            "would be written over",
        ),
        (
            ("model", "--data", "test.jsonl", "--json", "model/config.json"),
            64,
            "model/config.json would be written into model, which is read",
        ),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert _run(*arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("trimodal: error: ")
    assert message in error


def test_a_budget_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run("model", "--data", "test.jsonl", "--token-budget", "0")
    assert "argument --token-budget: 0 is not at least 1" in capsys.readouterr().err
