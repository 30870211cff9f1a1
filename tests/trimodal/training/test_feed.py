import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from trimodal.batch import Batch, Modality
from trimodal.config import ContrastiveConfig, ObjectivesConfig, RunConfig
from trimodal.errors import DataError, TrimodalError
from trimodal.objectives import Wish
from trimodal.training.building import build_dataset, build_processor
from trimodal.training.feed import StepFeed
from trimodal.vocabulary import Vocabulary


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
    for step in (0, 5):
        shares = [feed(config, rank, world_size).indices(step) for rank in range(world_size)]
        assert {len(share) for share in shares} == {8 // world_size}
        assert sorted(i for share in shares for i in share) == sorted(feed(config).indices(step))


def test_ranks_have_about_as_much_to_compute(config: RunConfig, tmp_path: Path) -> None:
    """Texts of all lengths; contiguous shares would be as uneven as chance has it."""
    path = tmp_path / "texts.jsonl"
    lengths = [1 + 37 * i % 50 for i in range(64)]
    rows = [{"id": str(i), "text": " ".join(["red"] * n)} for i, n in enumerate(lengths)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = replace(config.model, max_text_tokens=400)
    training = replace(config.training, batch_size=32)
    objectives = ObjectivesConfig(contrastive=ContrastiveConfig())
    data = replace(config.data, train=(str(path),))
    config = replace(config, data=data, model=model, training=training, objectives=objectives)
    for world_size in (2, 4):
        for step in range(4):
            tokens = [
                sum(batch.num_tokens for batch in feed(config, rank, world_size).batches(step))
                for rank in range(world_size)
            ]
            assert world_size * max(tokens) < 1.1 * sum(tokens)


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


def names(batches: list[Batch]) -> set[str]:
    return {name for b in batches if b.views is not None for name in b.views.predictions}


def test_plans_are_for_the_device_that_trains(config: RunConfig) -> None:
    """A loader knows no GPU; a plan for its own device would be made, copied and never used."""
    dataset = build_dataset(config, build_processor(config))
    (batch,) = StepFeed(dataset, config, way="triton").batches(0)
    assert batch.views is not None
    tables = [batch.views.tokens, *(media.tokens for media in batch.media.values())]
    assert {way for tokens in tables for way, _ in tokens.segments._plans} == {"triton"}


def test_every_objective_asks_in_time(everything: RunConfig) -> None:
    made = feed(everything)
    asked = set().union(*(names(made.batches(step)) for step in range(4)))
    assert asked == {
        "masked_vision", "masked_text", "masked_speech", "target_vision", "target_speech",
        "causal_text", "length_speech",
    }  # fmt: skip


def test_hidden_codes_are_asked_as_codes(everything: RunConfig) -> None:
    made = feed(everything)
    vocabulary = Vocabulary(everything.model.vocabulary)
    for step in range(4):
        (batch,) = made.batches(step)
        assert batch.views is not None
        for modality in (Modality.VISION, Modality.SPEECH):
            start, size = vocabulary.range_of(modality)
            for loss in ("masked", "target"):
                prediction = batch.views.predictions.get(f"{loss}_{modality.name.lower()}")
                if prediction is None:
                    continue
                assert prediction.target.dim() == (2 if loss == "masked" else 1)
                assert prediction.target.dtype == torch.int64
                assert ((prediction.target >= start) & (prediction.target < start + size)).all()


def test_hidden_speech_is_asked_by_random_quantisation(everything: RunConfig) -> None:
    assert everything.objectives.masked is not None
    masked = replace(
        everything.objectives.masked, speech_target="best_rq", vision_target="features", rate=1.0
    )
    config = replace(
        everything,
        model=replace(everything.model, best_rq_codebooks=2),
        objectives=ObjectivesConfig(masked=masked),
    )
    made, found = feed(config), []
    for step in range(4):
        (batch,) = made.batches(step)
        assert batch.views is not None
        assert "masked_speech" not in batch.views.predictions
        if "quantised_speech" in batch.views.predictions:
            found.append(batch.views.predictions["quantised_speech"].target)
    targets = torch.cat(found)
    assert targets.shape[1] == 2
    assert len(targets.unique(dim=0)) > len(targets) // 2
    assert int(targets.max()) < 1024


def test_target_views_do_not_depend_on_the_budget(everything: RunConfig) -> None:
    whole = feed(everything).batches(1)
    small = replace(everything, training=replace(everything.training, token_budget=100))
    cut = feed(small).batches(1)
    assert len(whole) == 1
    assert len(cut) > 2
    assert sum(b.num_tokens for b in cut) == whole[0].num_tokens
    assert all(b.num_tokens <= 100 or b.num_samples == 1 for b in cut)
    for name in names(whole):
        views = [b.views for b in cut if b.views is not None and name in b.views.predictions]
        parts = torch.cat([v.predictions[name].target for v in views]).flatten().tolist()
        assert whole[0].views is not None
        assert sorted(parts) == sorted(whole[0].views.predictions[name].target.flatten().tolist())


def test_targets_are_a_pure_function_of_the_step(everything: RunConfig) -> None:
    used, fresh = feed(everything), feed(everything)
    used.batches(0)
    for step in (3, 2):
        a, b = (made.batches(step)[0].views for made in (used, fresh))
        assert a is not None
        assert b is not None
        assert torch.equal(a.direct_T, b.direct_T)
        assert torch.equal(a.source_T, b.source_T)
    direct = [made.batches(step)[0].views.direct_T for made, step in ((used, 0), (used, 3))]  # pyright: ignore[reportOptionalMemberAccess]
    assert not torch.equal(*direct)


def test_ranks_draw_what_one_process_would(everything: RunConfig) -> None:
    def ids(batches: list[Batch]) -> list[int]:
        return [int(i) for b in batches if b.views is not None for i in b.views.direct_T]

    shares = [i for rank in range(2) for i in ids(feed(everything, rank, 2).batches(2))]
    assert sorted(shares) == sorted(ids(feed(everything).batches(2)))


def test_other_codes_are_hidden_in_every_step(everything: RunConfig) -> None:
    made, wish = feed(everything), Wish(Modality.VISION, frozenset())
    hidden = [made._writing(0, wish, step).hidden_T for step in range(20)]
    assert all(mask is not None and mask.any() for mask in hidden)
    assert len({mask.tobytes() for mask in hidden if mask is not None}) > 5


def damaged(config: RunConfig, *rows: int, tolerance: float = 0.5) -> RunConfig:
    """Rows whose media cannot be read, or that are missing from the third on, and tolerance."""
    folder = Path(config.data.train[0]).parent
    for place, row in enumerate(rows):
        for path in folder.glob(f"train-{row}.*"):
            path.write_bytes(b"broken") if place < 2 else path.unlink()
    return replace(config, data=replace(config.data, tolerance=tolerance))


@pytest.mark.parametrize("rows", [(3,), (0, 1, 2, 3)])
def test_what_cannot_be_used_is_left_out_and_nothing_else(
    everything: RunConfig, rows: tuple[int, ...]
) -> None:
    before = feed(everything)
    kept = [before.dataset.sample(i, 0, 5) for i in range(24)]
    after = feed(damaged(everything, *rows))
    found = [after._sample(i, 5, []) for i in range(24)]
    for index, (a, b) in enumerate(zip(found, kept, strict=True)):
        assert (a.id, a.group) == (b.id, b.group)
        assert a.media.keys() == (set() if index in rows else b.media.keys())
        assert all(torch.equal(a.media[m].features, b.media[m].features) for m in a.media)
    steps = [after.batches(step) for step in range(3)]
    assert sorted(name for step in steps for b in step for name in b.ids) == sorted(
        sample.id for sample in kept
    )
    told = [cause for step in steps for batch in step for cause in batch.skipped]
    assert {int(cause.split(":")[1]) for cause in told} == {row + 1 for row in rows}


def test_without_tolerance_the_first_is_raised(config: RunConfig) -> None:
    made = feed(damaged(config, 3, tolerance=0.0))
    with pytest.raises(DataError, match=r"train\.jsonl:4: image is not a PNG"):
        [made.batches(step) for step in range(3)]


def test_a_step_of_nothing_is_a_step(everything: RunConfig) -> None:
    made = feed(damaged(everything, *range(24)))
    batches = made.batches(0)
    assert sum(batch.num_samples for batch in batches) == 8
    assert all(not batch.media and batch.views is None for batch in batches)
