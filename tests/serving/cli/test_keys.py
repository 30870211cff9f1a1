import argparse
from pathlib import Path

import pytest

from trimodal.cli import guarded
from trimodal_serving.cli.keys import COMMAND
from trimodal_serving.keys import KeyFile, find


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: COMMAND.run(options))


def test_a_key_is_made_shown_once_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "keys.json")
    limits = ["--tokens", "1000000", "--audio-seconds", "0.5", "--in-flight", "4"]
    made = ["--tenant", "alice", "--days", "3", *limits]
    assert run("add", path, *made) == 0
    secret = capsys.readouterr().out.splitlines()[-1]
    key = find(KeyFile(path).load(), secret)
    assert key is not None
    assert (key.tenant, key.scopes) == ("alice", ("embed", "generate"))
    assert (key.limits.tokens, key.limits.in_flight) == (1_000_000, 4)
    assert run("list", path) == 0
    listed = capsys.readouterr().out
    shown = f"{key.id}  alice  embed,generate  interactive  valid until {key.expires}"
    assert listed == f"{shown}  {' '.join(limits)}\n"
    assert secret not in listed
    assert run("revoke", path, key.id) == 0
    capsys.readouterr()
    assert run("list", path) == 0
    assert "revoked" in capsys.readouterr().out


def test_a_key_without_quotas_has_the_limit_that_all_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "keys.json")
    assert run("add", path, "--tenant", "alice") == 0
    capsys.readouterr()
    assert run("list", path) == 0
    assert capsys.readouterr().out.endswith("  valid  --in-flight 64\n")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["add", "FILE", "--tenant", "a b"], 64, "tenant: must be"),
        (["add", "FILE", "--tenant", "a", "--scopes", "all"], 64, "scopes: must be"),
        (["list", "FILE"], 64, "there is no such file"),
        (["revoke", "FILE", "00"], 64, "there is no such file"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    problem: str,
) -> None:
    path = str(tmp_path / "keys.json")
    assert run(*(path if word == "FILE" else word for word in arguments)) == code
    message = capsys.readouterr().err
    assert problem in message
    assert message.count("\n") == 1
