import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import sentencepiece

from trimodal import cli
from trimodal.cli import main


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("tokenizer", "trimodal.cli.tokenizer:COMMAND", "trimodal.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


@pytest.fixture
def manifests(tmp_path: Path) -> list[str]:
    """Two manifests whose texts, questions and answers have characters of their own."""
    rows = [
        {"id": "a", "text": "red circle", "text_zh": "红色的圆形"},
        {"id": "b", "text": "blue", "question": "何处？", "answer": "桌"},
    ]
    paths = []
    for i, row in enumerate(rows):
        path = tmp_path / f"{i}.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(
    ("out", "file"), [("new/dir", "new/dir/text.model"), ("x.model", "x.model")]
)
def test_trains_on_texts_questions_and_answers(
    tmp_path: Path,
    manifests: list[str],
    capsys: pytest.CaptureFixture[str],
    out: str,
    file: str,
) -> None:
    arguments = ["--data", *manifests, "--out", str(tmp_path / out)]
    assert main(["tokenizer", "train", "text", *arguments]) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / file))
    printed = capsys.readouterr().out
    assert printed == f"{tmp_path / file}: {model.get_piece_size()} pieces\n"
    pieces = {model.id_to_piece(i) for i in range(model.get_piece_size())}
    assert {*"redblu", *"红色的圆形", *"何处", "桌"} <= pieces


def test_the_size_is_kept(tmp_path: Path, manifests: list[str]) -> None:
    arguments = ["--data", *manifests, "--out", str(tmp_path), "--vocab-size", "290"]
    assert main(["tokenizer", "train", "text", *arguments]) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "text.model"))
    assert model.get_piece_size() <= 290


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("0", "vocab_size: 0 is not positive"),
        ("100", "vocab_size: 100 is too small, these texts need at least 2"),
        ("2147483648", "vocab_size: 2147483648 is above 1000000"),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    tmp_path: Path,
    manifests: list[str],
    capsys: pytest.CaptureFixture[str],
    size: str,
    message: str,
) -> None:
    arguments = ["--data", *manifests, "--out", str(tmp_path), "--vocab-size", size]
    assert main(["tokenizer", "train", "text", *arguments]) == 64
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trimodal: error: {message}")
    assert not (tmp_path / "text.model").exists()


def test_manifests_that_cannot_be_used_are_refused(
    tmp_path: Path, manifests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["tokenizer", "train", "text", "--out", str(tmp_path), "--data"]
    assert main([*train, manifests[0], manifests[0]]) == 65
    assert "id 'a' is already used" in capsys.readouterr().err
    speech = tmp_path / "speech.jsonl"
    speech.write_text('{"id": "s", "speech": "0.jsonl"}')
    assert main([*train, str(speech)]) == 65
    assert "no text to train a tokenizer on" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, manifests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"{manifests[0]}/text.model"
    assert main(["tokenizer", "train", "text", "--data", manifests[1], "--out", out]) == 74
    assert f"{out} cannot be written: " in capsys.readouterr().err


def test_a_manifest_is_not_written_over(
    tmp_path: Path, manifests: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(manifests[0]).rename(tmp_path / "text.model")
    content = data.read_bytes()
    for out in (data, tmp_path):
        arguments = ["--data", manifests[1], str(data), "--out", str(out)]
        assert main(["tokenizer", "train", "text", *arguments]) == 64
        error = capsys.readouterr().err
        assert error == f"trimodal: error: {data} would be written over, and it is read\n"
        assert data.read_bytes() == content


@pytest.mark.parametrize("arguments", [[], ["train"], ["train", "text"]])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tokenizer", *arguments, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "example: trimodal tokenizer train text --data data/digits/train.jsonl" in shown
