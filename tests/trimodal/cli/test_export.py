from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from trimodal import cli
from trimodal.cli import main
from trimodal.training import exporting


@pytest.fixture(autouse=True)
def only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("export", "trimodal.cli.export:COMMAND", "trimodal.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])


@pytest.mark.parametrize(
    ("options", "given", "place"),
    [
        ([], (Path("runs/a"), None, None), "runs/a/model"),
        (["--step", "4", "--out", "x"], (Path("runs/a"), 4, Path("x")), "x"),
    ],
)
def test_what_was_written_is_said(
    options: list[str],
    given: tuple[Any, ...],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(exporting, "export", lambda *arguments: asked.append(arguments) or 4)
    assert main(["export", "runs/a", *options]) == 0
    assert asked == [given]
    assert capsys.readouterr().out == f"model of step 4 written to {place}\n"


def test_a_folder_that_is_no_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nothing")]) == 64
    assert "nothing/config.yaml: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["0", "-1", "four"])
def test_a_step_is_a_number_from_one(step: str) -> None:
    with pytest.raises(SystemExit):
        main(["export", "runs/a", "--step", step])


def test_a_model_is_not_written_over_unless_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(exporting, "export", lambda *arguments: asked.append(arguments) or 4)
    (tmp_path / "model").mkdir()
    assert main(["export", str(tmp_path)]) == 64
    assert f"{tmp_path}/model is there already; pass --overwrite" in capsys.readouterr().err
    assert not asked
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x")]) == 0
    assert main(["export", str(tmp_path), "--overwrite"]) == 0
    assert asked == [(tmp_path, None, tmp_path / "x"), (tmp_path, None, None)]
