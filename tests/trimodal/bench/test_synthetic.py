import torch

from trimodal.batch import Modality
from trimodal.bench.synthetic import SyntheticFeed
from trimodal.config import RunConfig


def test_a_step_is_a_pure_function_of_seed_and_step(config: RunConfig) -> None:
    first, again, other = (SyntheticFeed(config, 6).batches(step) for step in (2, 2, 3))
    assert len(first) == len(again)
    for a, b in zip(first, again, strict=True):
        for modality in a.media:
            assert torch.equal(a.media[modality].features, b.media[modality].features)
        assert a.views is not None
        assert b.views is not None
        assert torch.equal(a.views.source_T, b.views.source_T)
    sizes = [sum(batch.num_tokens for batch in batches) for batches in (first, other)]
    assert sizes[0] != sizes[1]


def test_samples_are_ragged_and_lack_modalities(config: RunConfig) -> None:
    batches = SyntheticFeed(config, 40).batches(0)
    assert sum(batch.num_samples for batch in batches) == 40
    assert max(batch.num_tokens for batch in batches) <= config.training.token_budget
    counts = {m: sum(len(b.sample_N[m]) for b in batches if m in b.sample_N) for m in Modality}
    assert all(20 < count < 40 for count in counts.values())
    losses = {name for batch in batches if batch.views for name in batch.views.predictions}
    assert {"causal_text", "target_vision", "target_speech", "length_speech"} <= losses
    assert losses & {"masked_vision", "masked_text", "masked_speech"}
    assert any(batch.matching is not None for batch in batches)
