from pathlib import Path

import pytest

from trimodal.train import main


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("run_dir: r\nsead: 1", [], "sead: no such key, did you mean seed?"),
        ("run_dir: r", ["training.max_steps=many"], "training.max_steps: expected int, got 'many'"),
        ("run_dir: [", [], "not YAML"),
        ("run_dir: r", ["nonsense"], "'nonsense' is not of the form key=value"),
    ],
)
def test_a_bad_configuration_is_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    overrides: list[str],
    message: str,
) -> None:
    complete = "\ndata: {train: [a.jsonl], tokenizer: t.model}\nobjectives: {contrastive: {}}\n"
    path = written(tmp_path, text + complete if "[" not in text else text)
    assert main([path, *overrides]) == 64
    error = capsys.readouterr().err
    assert error.startswith("trimodal: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 64
    assert "none.yaml: cannot be read" in capsys.readouterr().err
