import numpy as np
import pytest
import torch

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import ContrastiveConfig, MaskedConfig, ObjectivesConfig
from trimodal.objectives.planning import draw_hidden, plan_views

CONFIG = ObjectivesConfig(
    contrastive=ContrastiveConfig(fused=0.5), masked=MaskedConfig(rate=0.5, speech_span=3)
)


def medium(modality: Modality, tokens: int) -> Medium:
    grid = (tokens // 4, 4) if modality is Modality.VISION else (tokens, 1)
    return Medium(modality, torch.zeros(tokens, 2), tokens, grid)


def sample(name: str, *modalities: Modality) -> Sample:
    return Sample(name, {m: medium(m, 12) for m in modalities}, 0)


SAMPLES = [sample(f"s{i}", *list(Modality)[: 1 + i % 3]) for i in range(60)]


def test_a_plan_depends_on_keys_and_id_alone() -> None:
    fused, masked = plan_views(SAMPLES, CONFIG, "views", 0, 7)
    again_fused, again_masked = plan_views(SAMPLES[::-1], CONFIG, "views", 0, 7)
    assert again_fused[::-1] == fused
    for a, b in zip(again_masked[::-1], masked, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a.modality, a.helpers) == (b.modality, b.helpers)
            assert np.array_equal(a.hidden_T, b.hidden_T)
    other, _ = plan_views(SAMPLES, CONFIG, "views", 0, 8)
    assert other != fused


def test_only_what_is_present_is_planned() -> None:
    fused, masked = plan_views(SAMPLES, CONFIG, "views", 1, 0)
    for s, members, masking in zip(SAMPLES, fused, masked, strict=True):
        assert members is None or (len(members) > 1 and members <= set(s.media))
        if masking is not None:
            assert masking.modality in s.media
            assert masking.helpers <= set(s.media) - {masking.modality}
            assert masking.hidden_T.any()
    assert {len(m) for m in fused if m} == {2, 3}
    assert {m.modality for m in masked if m} == set(Modality)


def test_objectives_that_are_off_plan_nothing() -> None:
    config = ObjectivesConfig(contrastive=ContrastiveConfig(fused=0.0))
    fused, masked = plan_views(SAMPLES, config, "views", 1, 0)
    assert set(fused) == {None} == set(masked)


@pytest.mark.parametrize("tokens", [4, 8, 12, 40])
@pytest.mark.parametrize("modality", list(Modality))
def test_the_configured_fraction_is_hidden(modality: Modality, tokens: int) -> None:
    config = MaskedConfig(vision_ratio=0.5, text_ratio=0.5, speech_ratio=0.5, speech_span=3)
    rng = np.random.default_rng(0)
    counts = [int(draw_hidden(medium(modality, tokens), config, rng).sum()) for _ in range(50)]
    assert min(counts) >= 1
    assert tokens * 0.3 <= np.mean(counts) <= tokens * 0.76


@pytest.mark.parametrize("tokens", [3, 4, 5, 8, 12, 60])
@pytest.mark.parametrize("span", [3, 4])
def test_speech_is_hidden_in_whole_spans(tokens: int, span: int) -> None:
    config = MaskedConfig(speech_ratio=0.5, speech_span=span)
    rng = np.random.default_rng(0)
    ever = np.zeros(tokens, bool)
    for _ in range(200):
        hidden = draw_hidden(medium(Modality.SPEECH, tokens), config, rng)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden, [0]])))
        runs = edges[1::2] - edges[::2]
        assert (runs % span == 0).all() if tokens >= span else hidden.all()
        ever |= hidden
    assert ever.all(), "every frame can be hidden"


def test_blocks_of_patches_are_hidden_together() -> None:
    config = MaskedConfig(vision_ratio=0.25, vision_block=2)
    hidden = draw_hidden(medium(Modality.VISION, 64), config, np.random.default_rng(0)).reshape(
        16, 4
    )
    blocks = hidden.reshape(8, 2, 2, 2).sum((1, 3))
    assert set(blocks.flatten().tolist()) == {0, 4}


def test_one_token_can_be_hidden() -> None:
    rng = np.random.default_rng(0)
    for modality in (Modality.TEXT, Modality.SPEECH):
        one = Medium(modality, torch.zeros(1, 2), 1, (1, 1))
        assert draw_hidden(one, MaskedConfig(), rng).tolist() == [True]
