from dataclasses import replace

import pytest
import torch

from trimodal.batch import Batch, Modality
from trimodal.config import RunConfig
from trimodal.training.feed import StepFeed
from trimodal.training.trainer import build_dataset, build_processor


def feed(config: RunConfig, rank: int = 0, world_size: int = 1) -> StepFeed:
    return StepFeed(build_dataset(config, build_processor(config)), config, rank, world_size)


def features(batches: list[Batch], modality: Modality) -> torch.Tensor:
    return torch.cat([b.media[modality].features for b in batches if modality in b.media])


def test_an_epoch_sees_every_row_once(config: RunConfig) -> None:
    seen = [i for step in range(3) for i in feed(config).indices(step)]
    assert sorted(seen) == list(range(24))
    second = [i for step in range(3, 6) for i in feed(config).indices(step)]
    assert sorted(second) == list(range(24))
    assert second != seen


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_share_a_step(config: RunConfig, world_size: int) -> None:
    shares = [feed(config, rank, world_size).indices(5) for rank in range(world_size)]
    assert [i for share in shares for i in share] == feed(config).indices(5)


def test_a_step_is_a_pure_function(config: RunConfig) -> None:
    first = feed(config)
    for _ in range(3):
        first[0]
    fresh = feed(config)
    for step in (4, 1):
        a, b = first[step], fresh[step]
        for modality in Modality:
            assert torch.equal(features(a, modality), features(b, modality))
        assert all(x.views is not None and y.views is not None for x, y in zip(a, b, strict=True))
        assert torch.equal(a[0].views.source_T, b[0].views.source_T)  # pyright: ignore[reportOptionalMemberAccess]


def test_augmentation_is_new_in_every_epoch(config: RunConfig) -> None:
    made = feed(config)
    row = made.indices(0)[0]
    first, second = (made.dataset.sample(row, 0, step) for step in (0, 3))
    modality = next(m for m in (Modality.VISION, Modality.SPEECH) if m in first.media)
    a, b = first.media[modality].features, second.media[modality].features
    assert a.shape != b.shape or not torch.equal(a, b)


def test_the_budget_cuts_and_changes_nothing_else(config: RunConfig) -> None:
    whole = feed(config)[0]
    small = replace(config, training=replace(config.training, token_budget=60))
    cut = feed(small)[0]
    assert len(whole) == 1
    assert len(cut) > 2
    assert sum(b.num_samples for b in cut) == 8
    assert sum(b.num_tokens for b in cut) == whole[0].num_tokens
    assert all(b.num_tokens <= 60 or b.num_samples == 1 for b in cut)
