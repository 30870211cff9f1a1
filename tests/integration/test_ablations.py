"""benchmarks/ablations.py, with its training and its evaluation replaced."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    LengthConfig,
    MaskedConfig,
    ObjectivesConfig,
    TargetConfig,
    load_config,
)
from trimodal.evaluation.judges import Judges, JudgesConfig

PATH = Path(__file__).parents[2] / "benchmarks" / "ablations.py"
Calls = list[tuple[str, ...]]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFIG = """
run_dir: runs/mine
data: {train: [train.jsonl], tokenizer: text.model, test: test.jsonl}
objectives:
  contrastive: {fused: 0.5}
  causal: {}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def calls(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What would be run; an evaluation finds as many runs as there were before it."""
    made: Calls = []

    def call(*arguments: str) -> None:
        made.append(arguments)
        if "eval" in arguments:
            path = Path(arguments[arguments.index("--json") + 1])
            score = len(made) / 100
            path.write_text(json.dumps({"retrieval": {"image->text": {"R@1": score}}}))

    monkeypatch.setattr(script, "_call", call)
    return made


@pytest.fixture
def main(
    script: ModuleType, calls: Calls, config: Path, tmp_path: Path
) -> Callable[..., list[list[str]]]:
    """Runs the script, and returns by run the arguments of its training."""

    def run(*arguments: str) -> list[list[str]]:
        calls.clear()
        assert script.main([str(config), "--out", str(tmp_path / "out"), *arguments]) == 0
        return [list(made[3:]) for made in calls if made[1] == "trimodal.train"]

    return run


def test_each_objective_is_left_out_once(script: ModuleType) -> None:
    objectives = ObjectivesConfig(
        contrastive=ContrastiveConfig(fused=0.3),
        masked=MaskedConfig(),
        target=TargetConfig(),
        length=LengthConfig(),
    )
    assert script.variants(objectives) == {
        "everything": [],
        "without contrastive": ["objectives.contrastive=null"],
        "without masked": ["objectives.masked=null"],
        # nobody asks for lengths but targets
        "without target": ["objectives.target=null", "objectives.length=null"],
        "without length": ["objectives.length=null"],
        "without fused contrast": ["objectives.contrastive.fused=0"],
    }


@pytest.mark.parametrize(
    "objectives",
    [
        ObjectivesConfig(contrastive=ContrastiveConfig(fused=0.0), causal=CausalConfig()),
        ObjectivesConfig(contrastive=ContrastiveConfig(weight=0.0), causal=CausalConfig()),
        ObjectivesConfig(causal=CausalConfig()),
        ObjectivesConfig(target=TargetConfig(), length=LengthConfig()),
    ],
)
def test_what_is_off_or_all_there_is_is_not_left_out(
    script: ModuleType, objectives: ObjectivesConfig
) -> None:
    found = script.variants(objectives)
    assert "without fused contrast" not in found
    assert all(len(overrides) <= 1 for overrides in found.values())
    if objectives.contrastive is None:
        assert "without causal" not in found
        assert "without target" not in found


def test_the_overrides_are_those_of_a_configuration(script: ModuleType, config: Path) -> None:
    objectives = load_config(config).objectives
    for name, overrides in script.variants(objectives).items():
        left = load_config(config, overrides).objectives
        if name == "without fused contrast":
            assert left.contrastive == ContrastiveConfig(fused=0.0)
        elif name != "everything":
            assert getattr(left, name.removeprefix("without ")) is None
        assert (left == objectives) == (name == "everything")


def test_the_table_has_a_column_for_each_variant(script: ModuleType) -> None:
    text = {"image->text[en]": {"exact": 0.25}, "text[en]->image": {"accuracy": 0.5}}
    results: dict[str, dict[str, Any]] = {
        "everything": {
            "retrieval": {"image->text": {"R@1": 0.75}, "speech->image": {"R@1": 1.0}},
            "generation": {"directions": text},
        },
        "without causal": {"retrieval": {"image->text": {"R@1": 0.125}}},
    }
    lines = [" ".join(line.split()) for line in script.table(results).splitlines()]
    assert lines[0].startswith("score everything without causal")
    found = {line.rsplit(" ", 2)[0]: line.split() for line in lines if "image->text" in line}
    assert found["R@1 image->text"][-2:] == ["75.0", "12.5"]
    assert any("generated image->text[en] 25.0" in line for line in lines)
    assert any("generated text[en]->image 50.0" in line for line in lines)
    assert sum(line.startswith("R@1 ") for line in lines) == 4


def test_every_variant_is_trained_and_measured(
    main: Callable[..., list[list[str]]], calls: Calls, tmp_path: Path
) -> None:
    trained = main("--steps", "7")
    folders = ["everything", "without_contrastive", "without_causal", "without_fused_contrast"]
    assert [made[0] for made in trained] == [f"run_dir={tmp_path / 'out' / n}" for n in folders]
    assert all("training.max_steps=7" in made for made in trained)
    assert [made[4:] for made in trained] == [
        [],
        ["objectives.contrastive=null"],
        ["objectives.causal=null"],
        ["objectives.contrastive.fused=0"],
    ]
    measured = [made for made in calls if made[2] == "eval"]
    assert [Path(made[3]).parent.name for made in measured] == folders
    assert all("test.jsonl" in made and "--judges" not in made for made in measured)


def test_results_are_used_again_if_they_are_of_the_same_settings(
    main: Callable[..., list[list[str]]],
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("first", "second"):
        Judges(JudgesConfig(labels=("a", "b"))).save(tmp_path / name)
    assert len(main()) == 4
    first = capsys.readouterr().out
    config.write_text(f"# said otherwise\n{CONFIG}", encoding="utf-8")
    assert main() == []
    assert capsys.readouterr().out == first
    for changed in (["--steps", "9"], ["--steps", "9", "--judges", str(tmp_path / "first")]):
        assert len(main(*changed)) == 4
        assert main(*changed) == []
    other = ["--steps", "9", "--judges", str(tmp_path / "second")]
    assert len(main(*other)) == 4
    config.write_text(CONFIG + "seed: 5\n", encoding="utf-8")
    assert len(main(*other)) == 4
    config.write_text(CONFIG, encoding="utf-8")
    assert len(main()) == 4
    assert main() == []


def test_a_run_begins_with_nothing_of_one_with_other_settings(
    main: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    main()
    folder = tmp_path / "out" / "everything"
    (folder / "checkpoint").touch()
    (folder / "results.json").unlink()
    assert len(main()) == 1, "one that was interrupted goes on"
    assert (folder / "checkpoint").exists()
    main("--steps", "9")
    assert not (folder / "checkpoint").exists()
    for record in (b"{", b"{}", None):
        (folder / "checkpoint").touch()
        (folder / "made_with.json").unlink()
        if record is not None:
            (folder / "made_with.json").write_bytes(record)
        assert len(main("--steps", "9")) == 1
        assert not (folder / "checkpoint").exists()


def test_a_folder_of_something_else_is_kept(
    script: ModuleType,
    calls: Calls,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "out" / "everything"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").touch()
    assert script.main([str(config), "--out", str(tmp_path / "out")]) == 64
    said = capsys.readouterr().err
    assert said.startswith(f"ablations: error: --out: {folder} holds something else")
    assert (folder / "thesis.txt").exists()
    assert not calls


def test_judges_that_are_not_there_are_missed_before_anything_is_trained(
    script: ModuleType,
    calls: Calls,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(config), "--judges", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]
    assert script.main(arguments) == 64
    assert capsys.readouterr().err.count("\n") == 1
    assert not calls
