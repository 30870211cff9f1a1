import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trimodal import cli
from trimodal.cli import main
from trimodal.data import read_manifests


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("data", "trimodal.cli.data:COMMAND", "trimodal.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        ([], "trimodal data build digits data/digits"),
        (["build"], "trimodal data build digits data/digits"),
        (["build", "digits"], "trimodal data build digits data/digits --seed 1"),
        (["build", "scenes"], "trimodal data build scenes data/scenes --seed 1"),
        (["check"], "trimodal data check corpus/train.jsonl"),
    ],
)
def test_help_shows_an_example(
    capsys: pytest.CaptureFixture[str], arguments: list[str], example: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments, "--help"])
    assert ended.value.code == 0
    assert f"example: {example}" in " ".join(capsys.readouterr().out.split())


def test_build_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "digits"
    arguments = ["--limit", "2", "--speakers", "4", "--seed", "5", "--workers", "1"]
    assert main(["data", "build", "digits", str(out), *arguments]) == 0
    assert capsys.readouterr().out == f"{out}: 6 train rows, 2 val rows, 2 test rows\n"
    recipe = json.loads((out / "build.json").read_bytes())
    assert recipe == {
        "built_by": "trimodal data build digits",
        "seed": 5,
        "speakers": 4,
        "takes": 3,
        "limit": 2,
    }


def test_build_scenes_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    build = ["data", "build", "scenes", str(out), "--workers", "1", "--samples"]
    assert main([*build, "20"]) == 0
    assert main([*build, "10"]) == 0  # a former build is replaced
    manifests = [str(out / f"{split}.jsonl") for split in ("train", "val")]
    assert len(read_manifests(manifests)) == 11
    capsys.readouterr()
    assert main(["data", "check", *manifests]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{manifests[0]}: 0 problems"
    assert lines[1].startswith("rows: 10 (image 10, ")
    assert lines[5].startswith("kept as metadata: question_lang 10, ")
    assert lines[6] == f"{manifests[1]}: 0 problems"


def test_check_lists_all_problems_of_all_manifests_and_ends_with_65(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text('{"id": "a", "text": ""}\n{"id": "b", "image": "b.png"}\n')
    good.write_text('{"id": "a", "text": "x"}\n')
    missing = tmp_path / "missing.jsonl"
    assert main(["data", "check", str(bad), str(good), str(missing)]) == 65
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{bad}:1: text is empty",
        f"{bad}:2: image 'b.png' does not exist",
        f"{bad}: 2 problems",
    ]
    assert f"{good}: 0 problems" in lines
    assert f"manifest {missing} cannot be read: No such file or directory" in lines
    assert lines[-1] == f"{missing}: 1 problem", "nothing is counted of what is not there"


def test_check_warns_of_keys_that_may_be_slips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"id": "a", "text": "x", "labl": "y"}\n')
    assert main(["data", "check", str(manifest)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{manifest}: warning: 'labl' in 1 row is unknown")
    assert lines[-1] == "kept as metadata: labl 1"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["digits", "{out}", "--speakers", "1"], 64, "1 speakers are too few for 3 takes"),
        (["digits", "{out}", "--limit", "0"], 64, "a limit of 0 leaves no scans"),
        (["scenes", "{out}", "--samples", "3"], 64, "3 samples are too few"),
        (["scenes", "{full}", "--samples", "10"], 64, "{full} is not empty and no former build"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    places = {"out": str(tmp_path / "out"), "full": str(full)}
    filled = [argument.format(**places) for argument in arguments]
    assert main(["data", "build", *filled]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trimodal: error: {message.format(**places)}")
    assert not (tmp_path / "out").exists()


def test_overwrite_builds_beside_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    arguments = ["--samples", "10", "--workers", "1", "--overwrite"]
    assert main(["data", "build", "scenes", str(tmp_path), *arguments]) == 0
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "test.jsonl").exists()


@pytest.mark.parametrize("arguments", [[], ["build"], ["build", "faces", "x"], ["check"]])
def test_an_incomplete_command_line_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments])
    assert ended.value.code == 2
