import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import sentencepiece

from trimodal import cli
from trimodal.cli import main
from trimodal.evaluation.judges import Judges, JudgesConfig, fingerprint
from trimodal.testing import COLOURS, assert_close, write_tiny_manifest


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
    assert main(["tokenizer", "train", "text", "--data", manifests[1], "--out", out]) == 64
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


TINY = {
    "vision": ["tokenizer={levels: [3, 3], strides: [2], width: 8, depth: 0}", "crop=8"],
    "speech": [
        "tokenizer={levels: [3, 3], width: 8, depth: 0, speech_input: {num_mels: 16}}",
        "crop_frames=16",
    ],
    "vocoder": ["vocoder={width: 8, depth: 1, speech_input: {num_mels: 16}}", "crop_frames=16"],
}


def _train(what: str, folder: Path, *more: str) -> int:
    options = [item for item in more if "=" not in item]
    changes = [item for item in more if "=" in item]
    data = str(folder / "data" / "train.jsonl")
    out = str(folder / "out" / what)
    given = ["--data", data, "--out", out, *options]
    config = folder / "steps.yaml"
    config.write_text("training: {max_steps: 2, batch_size: 2, warmup_steps: 1}\n")
    return main(
        ["tokenizer", "train", what, *given, "--config", str(config), *TINY[what], *changes]
    )


def test_learnt_tokenizers_are_trained_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_tiny_manifest(tmp_path / "data", rows=4))
    tokenizer = ["--tokenizer", str(tmp_path / "out" / "speech")]
    for what, more in (("vision", []), ("speech", []), ("vocoder", tokenizer)):
        out = tmp_path / "out" / what
        assert _train(what, tmp_path, *more) == 0
        assert capsys.readouterr().out.endswith(f"{out}: written\n")
        assert (out / "model.safetensors").is_file()
        assert _train(what, tmp_path, *more) == 0
        assert capsys.readouterr().out == f"{out}: is finished, nothing is left to do\n"
        assert main(["tokenizer", "eval", str(out), "--data", data, *more]) == 0
        shown = {"vision": "psnr", "speech": "error", "vocoder": "distortion"}[what]
        assert capsys.readouterr().out.startswith(f"{shown} ")


def test_judges_say_what_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tiny_manifest(tmp_path / "data", rows=4)
    assert _train("vision", tmp_path) == 0
    judges = JudgesConfig(labels=tuple(sorted(COLOURS)), inputs=("image",))
    Judges(judges).save(tmp_path / "judges")
    Judges(replace(judges, manifest=fingerprint(data))).save(tmp_path / "partial")
    out = str(tmp_path / "out" / "vision")
    arguments = ["tokenizer", "eval", out, "--data", str(data), "--judges"]
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "judges")]) == 0
    [line] = capsys.readouterr().out.splitlines()
    words = line.split()
    assert words[::2] == [
        *("psnr", "usage", "perplexity"),
        *("judged_originals", "judged", "kept"),
    ]
    before, after, kept = (float(word) for word in words[7::2])
    assert 0 <= before <= 1
    assert_close(kept, after - before, "fp32")
    assert main([*arguments, str(tmp_path / "partial")]) == 0
    line, note = capsys.readouterr().out.splitlines()
    assert note == "(among these are the rows that the judges were trained on)"
    assert main([*arguments, out]) == 64
    error = capsys.readouterr().err
    assert error == f"trimodal: error: {out} holds something else than judges\n"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_manifest(tmp_path / "data", rows=4)
    assert _train("vision", tmp_path, "crop=1") == 64
    [line] = capsys.readouterr().err.splitlines()
    assert line == "trimodal: error: crop: 1 is less than the 2 pixels of a code"
    assert _train("vision", tmp_path) == 0
    capsys.readouterr()
    assert _train("vision", tmp_path, "seed=5") == 64
    assert "was trained otherwise: seed was 0, is 5" in capsys.readouterr().err
    arguments = ["--data", str(tmp_path / "data" / "train.jsonl"), "--tokenizer", "nowhere"]
    assert main(["tokenizer", "train", "vocoder", *arguments, "--out", str(tmp_path / "v")]) == 64
    assert "nowhere is not a speech tokenizer" in capsys.readouterr().err


def test_what_is_not_finite_ends_with_a_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_manifest(tmp_path / "data", rows=4)
    assert _train("speech", tmp_path, "squared_weight=1e38", "training.max_steps=9") == 76
    *steps, line = capsys.readouterr().err.splitlines()
    assert [told.split(": ")[1] for told in steps] == [f"step {i} is left out" for i in (1, 2, 3)]
    assert line.startswith("trimodal: error: step 3: the loss is ")
    assert line.endswith("and there is no checkpoint to go back to")


@pytest.mark.parametrize("what", TINY)
def test_help_of_learnt_tokenizers_shows_their_example(
    capsys: pytest.CaptureFixture[str], what: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tokenizer", "train", what, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"trimodal tokenizer train {what} --data data/digits/train.jsonl" in shown
    assert f"--config configs/tokenizers/digits_{what}.yaml" in shown


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from trimodal.cli import main\n"
        "try: main(['tokenizer', 'train', 'vision', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.endswith("False False\n")


@pytest.mark.parametrize("arguments", [[], ["train"], ["train", "text"]])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tokenizer", *arguments, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "example: trimodal tokenizer train text --data data/digits/train.jsonl" in shown
