import argparse
import json
from pathlib import Path

import pytest

import trimodal.bench
from trimodal.bench.timing import Row, compare
from trimodal.cli import guarded
from trimodal.cli.bench import COMMAND


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: COMMAND.run(options))


@pytest.mark.parametrize(("gate", "code"), [(2.0, 0), (4.0, 1), (None, 0)])
def test_a_missed_gate_is_an_exit_code(
    gate: float | None,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rows(rounds: int, config: object) -> list[Row]:
        assert (rounds, config) == (3, [])
        return [compare("attention", 1.0, 3.0, gate)]

    monkeypatch.setattr(trimodal.bench, "cpu_rows", rows)
    out = tmp_path / "rows.json"
    assert _run("kernels", "--device", "cpu", "--rounds", "3", "--json", str(out)) == code
    assert "attention" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["name"], row["ratio"], row["gate"]) == ("attention", 3.0, gate)
    assert row["pass"] == (code == 0)


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("kernels", "--config", "nowhere.yaml") != 0
    assert "nowhere.yaml" in capsys.readouterr().err
