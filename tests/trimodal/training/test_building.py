import json
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch._dynamo.testing import CompileCounterWithBackend

from trimodal.config import RunConfig
from trimodal.data.shards import import_manifest
from trimodal.errors import DataError
from trimodal.models import TrimodalModel, load
from trimodal.models.layers import Block
from trimodal.testing import assert_close
from trimodal.training.building import (
    build_dataset,
    build_processor,
    data_fingerprint,
    new_model,
    set_up_blocks,
)
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients


def with_data(config: RunConfig, **changes: Any) -> RunConfig:
    return replace(config, data=replace(config.data, **changes))


def gradients(
    config: RunConfig, steps: int = 1, **settings: bool
) -> tuple[dict[str, torch.Tensor], float]:
    """Of the first steps, and how much was saved for the backward pass."""
    torch.manual_seed(0)
    processor = build_processor(config)
    model = new_model(config, processor)
    set_up_blocks(model, replace(config.training, **settings))
    feed = StepFeed(build_dataset(config, processor), config)
    saved = 0

    def keep(x: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += x.numel()
        return x

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        for step in range(steps):
            StepGradients(Accelerator(), model, config)(feed.batches(step))
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, saved


def dropping(config: RunConfig) -> RunConfig:
    stacks = {
        name: replace(getattr(config.model, name), dropout=0.1)
        for name in ("vision", "text", "speech", "trunk")
    }
    return replace(config, model=replace(config.model, **stacks))


def test_recomputed_blocks_have_the_same_gradients_and_keep_less(everything: RunConfig) -> None:
    config = dropping(everything)
    expected, whole = gradients(config)
    found, less = gradients(config, activation_checkpointing=True)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert torch.equal(found[name], grad), name
    assert less < 0.8 * whole


@pytest.mark.slow
def test_compiled_blocks_have_the_same_gradients(
    everything: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Differentiated by aot_autograd; what inductor makes of it is torch's."""
    expected, _ = gradients(everything, steps=3)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = Block.compile
    monkeypatch.setattr(Block, "compile", partialmethod(compiled, backend=counter))
    torch._dynamo.reset()
    found, _ = gradients(everything, steps=3, compile=True)
    for name, grad in expected.items():
        assert_close(found[name], grad, "fp32-gradient")
    assert counter.frame_count == 2, "before attention and behind it, whatever its plans"


def test_shards_have_the_samples_of_their_manifest(everything: RunConfig, tmp_path: Path) -> None:
    import_manifest(everything.data.train[0], tmp_path / "shards")
    sharded = with_data(everything, train=(str(tmp_path / "shards"),))
    processor = build_processor(everything)
    a, b = (
        StepFeed(build_dataset(config, processor), config).batches(1)
        for config in (everything, sharded)
    )
    assert [batch.ids for batch in a] == [batch.ids for batch in b]
    for x, y in zip(a, b, strict=True):
        assert x.media.keys() == y.media.keys()
        assert all(torch.equal(x.media[m].features, y.media[m].features) for m in x.media)
        assert x.views is not None
        assert y.views is not None
        assert torch.equal(x.views.direct_T, y.views.direct_T)


def test_the_fingerprint_is_of_what_the_data_are(everything: RunConfig, tmp_path: Path) -> None:
    processor = build_processor(everything)
    before = data_fingerprint(everything, processor)
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(Path(everything.data.train[0]).read_bytes())
    assert data_fingerprint(with_data(everything, train=(str(moved),)), processor) == before
    moved.write_bytes(moved.read_bytes() + b"\n")
    assert data_fingerprint(with_data(everything, train=(str(moved),)), processor) != before
    missing = with_data(everything, train=(str(tmp_path / "nothing.jsonl"),))
    with pytest.raises(DataError, match=r"nothing\.jsonl cannot be read: No such file"):
        data_fingerprint(missing, processor)


def test_a_new_model_says_what_it_generates(everything: RunConfig) -> None:
    model = new_model(everything, build_processor(everything))
    assert isinstance(model, TrimodalModel)
    assert model.config.generates == ["image", "speech", "text"]
    assert model.processor is not None


def test_a_model_says_whether_it_learnt_to_answer(everything: RunConfig, tmp_path: Path) -> None:
    def answers(run: RunConfig, saved: dict[str, Any] | None = None) -> bool | None:
        processor = build_processor(run)
        model = new_model(run, processor, saved, build_dataset(run, processor))
        model.save_pretrained(tmp_path / "model")
        told = load(tmp_path / "model").config.answers
        assert new_model(run, processor, {"answers": told}).config.answers == told
        return told

    assert answers(everything) is True
    assert answers(everything, {}) is True
    causal = everything.objectives.causal
    assert causal is not None
    objectives = replace(everything.objectives, causal=replace(causal, answers=0.0))
    assert answers(replace(everything, objectives=objectives)) is False
    path = Path(everything.data.train[0])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bare = [{key: row[key] for key in row if key not in ("question", "answer")} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in bare), encoding="utf-8")
    assert answers(everything) is False
    assert new_model(everything, build_processor(everything), {}).config.answers is None
