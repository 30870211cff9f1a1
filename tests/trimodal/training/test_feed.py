from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from trimodal.batch import Batch, Modality
from trimodal.config import RunConfig
from trimodal.errors import TrimodalError
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
        first.batches(0)
    fresh = feed(config)
    for step in (4, 1):
        a, b = first.batches(step), fresh.batches(step)
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
    whole = feed(config).batches(0)
    small = replace(config, training=replace(config.training, token_budget=60))
    cut = feed(small).batches(0)
    assert len(whole) == 1
    assert len(cut) > 2
    assert sum(b.num_samples for b in cut) == 8
    assert sum(b.num_tokens for b in cut) == whole[0].num_tokens
    assert all(b.num_tokens <= 60 or b.num_samples == 1 for b in cut)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_process_returns_an_error_as_it_is(config: RunConfig, num_workers: int) -> None:
    manifest = Path(config.data.train[0])
    (manifest.parent / "train-3.png").write_bytes(b"\x89PNG broken")
    loader = DataLoader(feed(config), sampler=range(3), batch_size=None, num_workers=num_workers)
    (error,) = [found for found in loader if isinstance(found, TrimodalError)]
    assert str(error) == f"{manifest}:4: image is not a PNG, JPEG or WebP picture"


def test_a_loader_process_gives_the_same_batches(config: RunConfig) -> None:
    (loaded,) = DataLoader(feed(config), sampler=[2], batch_size=None, num_workers=1)
    for modality in Modality:
        assert torch.equal(features(loaded, modality), features(feed(config).batches(2), modality))
