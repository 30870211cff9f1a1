from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trimodal.assembly import assemble
from trimodal.batch import Batch, Medium, Modality, Sample
from trimodal.bench.costs import Cost, head_flops, kept_bytes, saved_bytes
from trimodal.bench.synthetic import SyntheticFeed
from trimodal.config import (
    CausalConfig,
    DataConfig,
    LengthConfig,
    MaskedConfig,
    ObjectivesConfig,
    RunConfig,
    TargetConfig,
    TransformerConfig,
    VocabularyConfig,
)
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.layers import Transformer
from trimodal.objectives import predicted
from trimodal.schema import to_dict
from trimodal.testing import assert_close, tiny_model_config
from trimodal.training.throughput import training_flops
from trimodal_kernels import Segments

CONFIG = RunConfig(
    run_dir="unused",
    data=DataConfig(train=("unused",), tokenizer="unused", tokenizers="unused"),
    model=replace(tiny_model_config(), vocabulary=VocabularyConfig(text=512, vision=64, speech=64)),
    objectives=ObjectivesConfig(
        masked=MaskedConfig(rate=0.8, speech_target="codes"),
        target=TargetConfig(rate=0.8),
        causal=CausalConfig(rate=0.8),
        length=LengthConfig(),
    ),
)


def new_model() -> TrimodalModel:
    torch.manual_seed(0)
    return TrimodalModel(TrimodalConfig(architecture=to_dict(CONFIG.model))).train()


def counted(model: TrimodalModel, batch: Batch) -> dict[str, int]:
    """What torch counts of the products of a forward and backward, by the name of the operation."""
    with FlopCounterMode(display=False) as counter:
        output = model(**batch.inputs())
        assert output.z_NSE is not None
        losses = predicted(
            output.predictions or {}, None, batch, model.vocabulary, CONFIG.objectives
        )
        (sum(losses.values()) + output.z_NSE.sum()).backward()
    return {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}


def first_products(model: TrimodalModel, batch: Batch) -> int:
    """FLOPs of gradients that nobody asks for: those of patches and frames themselves."""
    total = 0
    firsts = {Modality.VISION: "projection.weight", Modality.SPEECH: "first.weight"}
    for modality, name in firsts.items():
        if modality in batch.media:
            rows = batch.media[modality].tokens.num_tokens
            rows *= 2 if modality is Modality.SPEECH else 1
            total += 2 * model.encoder(modality).frontend.get_parameter(name).numel() * rows
    return total


def test_products_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMODAL_KERNELS", "reference")
    model, feed = new_model(), SyntheticFeed(CONFIG, 6)
    batch = feed.batches(0)[0]
    assert batch.views is not None
    asked = {name.partition("_")[0] for name in batch.views.predictions}
    assert asked == {"masked", "target", "causal", "length"}
    found = counted(model, batch)
    linear = sum(n for op, n in found.items() if op in ("aten.mm", "aten.addmm"))
    pairs = sum(
        12 * stack.config.width * stack.config.depth * int(_pairs(tokens))
        for stack, tokens in (
            *((model.encoder(m).transformer, x.tokens) for m, x in batch.media.items()),
            (model.trunk, batch.views.tokens),
        )
    )
    expected = training_flops(model, [batch]) + head_flops(model, [batch]) - pairs
    assert_close(linear, expected - first_products(model, batch), "fp32")


def _pairs(tokens: Any) -> int:
    table = tokens.segments.table_S5
    return int(((table[:, 1] - table[:, 0]) * (table[:, 3] - table[:, 2])).sum())


def test_attention_of_one_text_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMODAL_KERNELS", "reference")
    model = new_model()
    ids = torch.arange(70, 90)
    sample = Sample("a", {Modality.TEXT: Medium(Modality.TEXT, ids, 20, (20, 1))}, 0)
    batch = assemble([sample], summaries=True)
    model.eval()  # no zero-weight paths through what is absent
    found = counted(model, batch)
    products = sum(n for op, n in found.items() if op not in ("aten.mm", "aten.addmm"))
    assert_close(products, 12 * 32 * 1 * 20**2, "exact")


def test_a_model_is_counted_exactly() -> None:
    cost = Cost.of(CONFIG)
    assert cost.parameters == sum(p.numel() for p in new_model().parameters())
    block = 4 * 32**2 + 3 * 32 * 88 + 2 * 32 + 2 * 16
    assert cost.block == block
    assert cost.outside == cost.parameters - 5 * block
    tokens = sum(batch.num_tokens for batch in SyntheticFeed(CONFIG, 64).batches(0))
    assert_close(cost.tokens * 64, tokens, "exact")
    assert 0 < cost.attention < 1
    assert cost.recomputed < cost.activations


def test_what_is_kept_is_what_a_real_block_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels in Triton's interpreter, on tensors that have memory."""
    config = TransformerConfig(width=64, depth=1, num_heads=2)
    predicted_bytes = saved_bytes(config)
    monkeypatch.setenv("TRIMODAL_KERNELS", "triton")

    def real(depth: int, size: int) -> int:
        stack = Transformer(replace(config, depth=depth))
        ids = torch.full((size,), 70)
        sample = Sample("a", {Modality.TEXT: Medium(Modality.TEXT, ids, size, (size, 1))}, 0)
        packed = assemble([sample], summaries=True).media[Modality.TEXT].tokens
        tokens = replace(packed, segments=Segments.from_lengths([size]))
        x_TD = torch.randn(size, 64, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            return kept_bytes(stack, x_TD, tokens)

    grown = [real(depth, 96) - real(depth, 32) for depth in (1, 2)]
    assert_close((grown[1] - grown[0]) / 64, predicted_bytes, "exact")
