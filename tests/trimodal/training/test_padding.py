from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from trimodal.batch import Batch, Modality, TokenBatch
from trimodal.config import RunConfig
from trimodal.models.layers import Transformer
from trimodal.testing import tiny_model
from trimodal.training.building import build_dataset, build_processor
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import _nothing
from trimodal.training.padding import padding
from trimodal_kernels import Segments


def batches_of(config: RunConfig, budget: int) -> list[Batch]:
    config = replace(config, training=replace(config.training, token_budget=budget))
    return StepFeed(build_dataset(config, build_processor(config)), config).batches(0)


def computed(batch: Batch) -> int:
    """Rows that the blocks of a model in training are given."""
    rows: list[int] = []
    model = tiny_model().train()

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows.append(len(given[0]))

    for module in model.modules():
        if isinstance(module, Transformer):
            module.register_forward_pre_hook(count)
    model(**batch.inputs())
    assert len(rows) == len(Modality) + 1
    return sum(rows)


def test_what_is_packed_has_none(everything: RunConfig) -> None:
    (batch,) = batches_of(everything, 100_000)
    assert set(batch.media) == set(Modality)
    assert padding([batch], 0) == (0, batch.num_tokens)
    assert computed(batch) == batch.num_tokens


def test_what_is_computed_in_vain_is_counted(everything: RunConfig) -> None:
    """Against the rows that a real model computes of micro-batches that lack modalities."""
    batches = batches_of(everything, 60)
    batches += [replace(batches[0], views=None), _nothing(batches[0])]
    found = [padding([batch], 0) for batch in batches]
    assert [empty + held for empty, held in found] == [computed(batch) for batch in batches]
    assert [held for _, held in found] == [batch.num_tokens for batch in batches]
    lacking = [3 - len(b.media) + (b.views is None) for b in batches]
    assert [empty for empty, _ in found] == lacking
    assert {0, 1, 4} <= set(lacking)
    assert padding(batches, 0) == tuple(map(sum, zip(*found, strict=True)))


def test_micro_batches_of_nothing_are_counted(everything: RunConfig) -> None:
    (batch,) = batches_of(everything, 100_000)
    assert padding([batch], 3) == (12, batch.num_tokens)


@pytest.mark.parametrize("rows", [1, 7])
def test_rows_behind_the_last_medium_hold_nothing(everything: RunConfig, rows: int) -> None:
    """As in a layout that would round the number of tokens up."""
    (batch,) = batches_of(everything, 100_000)
    media = batch.media[Modality.TEXT]
    padded = replace(media, tokens=longer(media.tokens, rows))
    changed = replace(batch, media={**batch.media, Modality.TEXT: padded})
    assert padding([changed], 0) == (rows, batch.num_tokens)


def longer(tokens: TokenBatch, rows: int) -> TokenBatch:
    size = tokens.num_tokens
    return TokenBatch(
        positions_T2=torch.cat([tokens.positions_T2, torch.zeros(rows, 2, dtype=torch.int64)]),
        modality_T=torch.cat([tokens.modality_T, torch.ones(rows, dtype=torch.int64)]),
        route_T=torch.cat([tokens.route_T, torch.zeros(rows, dtype=torch.int64)]),
        cu_seqlens=tokens.cu_seqlens,
        segments=Segments.from_lengths([size, rows]),
    )
