from dataclasses import replace
from pathlib import Path

import pytest

from trimodal.bench.costs import Cost
from trimodal.bench.scaling import GIB, Share
from trimodal.cli import main
from trimodal.config import AverageConfig, RunConfig, load_config
from trimodal.testing import assert_close

ROOT = Path(__file__).resolve().parents[3]
COST = Cost(
    parameters=1000,
    block=100,
    outside=400,
    tokens=10.0,
    flops=1e9,
    attention=0.1,
    activations=50.0,
    recomputed=8.0,
)


@pytest.fixture
def config() -> RunConfig:
    loaded = load_config(ROOT / "configs" / "tiny.yaml")
    training = replace(loaded.training, batch_size=64, token_budget=80)
    return replace(loaded, training=training)


def test_one_gpu_by_hand(config: RunConfig) -> None:
    share = Share.of(config, COST, 1)
    assert share is not None
    assert (share.samples, share.micro_batches) == (64, 8)
    assert_close(share.replicated * GIB, 16 * 1000 + 2 * 1000 + 80 * 50, "fp64")
    assert share.ddp == share.fsdp == 0
    assert_close(share.compute, 64 * 1e9 * 4 / 3 / (989e12 * 0.4), "fp64")


def test_eight_gpus_by_hand(config: RunConfig) -> None:
    share = Share.of(config, COST, 8)
    assert share is not None
    assert (share.samples, share.micro_batches) == (8, 1)
    assert_close(share.replicated * GIB, (16 + 2 + 4) * 1000 + 80 * 50, "fp64")
    assert_close(share.sharded * GIB, 16 * 1000 / 8 + 2 * (400 + 200) + 80 * 50, "fp64")
    contrast = 3 * (4 * 512 * 4) * 8 * 7
    assert_close(share.ddp, 8 * 1000 * 7 / 8 + contrast, "fp64")
    assert_close(share.fsdp, (2 * 2 + 4) * 1000 * 7 / 8 + contrast, "fp64")
    assert_close(share.exchange(share.ddp), share.ddp / 450e9, "fp64")


def test_an_average_and_recomputation_count(config: RunConfig) -> None:
    training = replace(config.training, ema=AverageConfig(), activation_checkpointing=True)
    share = Share.of(replace(config, training=training), COST, 1)
    assert share is not None
    assert_close(share.replicated * GIB, 20 * 1000 + 2 * 1000 + 80 * 8, "fp64")


def test_a_batch_that_cannot_be_shared_has_no_row(config: RunConfig) -> None:
    assert Share.of(config, COST, 1024) is None


def test_the_command_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scaling", str(ROOT / "configs" / "tiny.yaml")]) == 0
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    rows = [line for line in printed if line.startswith("| ")]
    assert len(rows) >= 7
    assert [row for row in rows if row not in page] == []
