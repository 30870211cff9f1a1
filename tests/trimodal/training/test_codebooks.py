import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trimodal.batch import Batch, Modality, Prediction
from trimodal.config import RunConfig
from trimodal.testing import assert_close
from trimodal.training import codebooks
from trimodal.training.building import build_dataset, build_processor
from trimodal.training.codebooks import CodebookUsage
from trimodal.training.feed import StepFeed
from trimodal.training.trainer import train
from trimodal.vocabulary import Vocabulary

CPU = torch.device("cpu")


def batch_of(config: RunConfig, *codes: int) -> Batch:
    """A step whose target picture is these codes, and which asks for features and texts too."""
    batch = StepFeed(build_dataset(config, build_processor(config)), config).batches(0)[0]
    assert batch.views is not None
    start = Vocabulary(config.model.vocabulary).vision.start
    target = torch.tensor(codes) + start
    asked = {
        "target_vision": Prediction(Modality.VISION, torch.arange(len(codes)), target),
        "masked_vision": Prediction(Modality.VISION, torch.arange(2), torch.zeros(2, 48)),
        "masked_text": Prediction(Modality.TEXT, torch.arange(1), torch.tensor([9])),
        "quantised_speech": Prediction(Modality.SPEECH, torch.arange(1), torch.tensor([[3]])),
    }
    return replace(batch, views=replace(batch.views, predictions=asked))


def test_codes_are_counted_by_hand(everything: RunConfig) -> None:
    counted = CodebookUsage(everything, build_processor(everything), CPU)
    found = counted([batch_of(everything, 0, 0, 5, 5), batch_of(everything, 7, 7)])
    assert_close(found["codes/usage/vision"], 3 / 16, "fp64")
    assert_close(found["codes/perplexity/vision"], 3.0, "fp64")
    assert found["codes/usage/speech"] == found["codes/perplexity/speech"] == 0.0
    found = counted([batch_of(everything, *range(6))])
    shares = [3, 1, 1, 1, 1, 3, 2]
    entropy = -sum(n / 12 * math.log(n / 12) for n in shares)
    assert_close(found["codes/perplexity/vision"], math.exp(entropy), "fp64")


def test_what_is_long_past_is_forgotten(
    everything: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebooks, "WINDOW", 2)
    counted = CodebookUsage(everything, build_processor(everything), CPU)
    counted([batch_of(everything, *range(16))])
    counted([batch_of(everything, 3)])
    found = counted([batch_of(everything, 3)])
    assert_close(found["codes/usage/vision"], 1 / 16, "fp64")


def test_it_goes_on_where_it_was_saved(everything: RunConfig) -> None:
    processor = build_processor(everything)
    first, second = (CodebookUsage(everything, processor, CPU) for _ in range(2))
    assert first.tensors() == {}
    first([batch_of(everything, 1, 2, 3)])
    second.restore(first.tensors())
    batch = batch_of(everything, 3, 4)
    assert second([batch]) == first([batch])


def test_a_run_without_codes_has_none(config: RunConfig) -> None:
    counted = CodebookUsage(config, build_processor(config), CPU)
    assert counted([]) == {}
    assert counted.tensors() == {}


def lines(config: RunConfig) -> list[dict[str, Any]]:
    text = (Path(config.run_dir) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_runs_report_it_the_same_when_they_go_on(everything: RunConfig) -> None:
    train(everything)
    keys = [k for k in lines(everything)[0] if k.startswith("codes/")]
    assert len(keys) == 4
    before = [[line[key] for key in keys] for line in lines(everything)]
    assert all(0 < values[0] <= 1 for values in before)
    last = Path(everything.run_dir) / "checkpoints" / "step-00000006"
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    train(everything)
    assert [[line[key] for key in keys] for line in lines(everything)] == before
