from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    LengthConfig,
    MaskedConfig,
    ObjectivesConfig,
    TargetConfig,
)
from trimodal.objectives.planning import Wish, draw_hidden, draw_hidden_codes, plan_views

CONFIG = ObjectivesConfig(
    contrastive=ContrastiveConfig(fused=0.5), masked=MaskedConfig(rate=0.5, speech_span=3)
)
EVERYTHING = replace(CONFIG, target=TargetConfig(), causal=CausalConfig(), length=LengthConfig())
V, T, S = Modality


def medium(modality: Modality, tokens: int) -> Medium:
    grid = (tokens // 4, 4) if modality is Modality.VISION else (tokens, 1)
    return Medium(modality, torch.zeros(tokens, 2), tokens, grid)


def sample(name: str, *modalities: Modality) -> Sample:
    return Sample(name, {m: medium(m, 12) for m in modalities}, 0)


SAMPLES = [sample(f"s{i}", *list(Modality)[: 1 + i % 3]) for i in range(60)]


def test_a_plan_depends_on_keys_and_id_alone() -> None:
    plan = plan_views(SAMPLES, EVERYTHING, "views", 0, 7)
    again = plan_views(SAMPLES[::-1], EVERYTHING, "views", 0, 7)
    some = plan_views(SAMPLES[5:9], EVERYTHING, "views", 0, 7)
    assert again.fused[::-1] == plan.fused
    assert again.wishes[::-1] == plan.wishes
    assert (some.fused, some.wishes) == (plan.fused[5:9], plan.wishes[5:9])
    for a, b in zip(again.masked[::-1], plan.masked, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a.modality, a.helpers) == (b.modality, b.helpers)
            assert np.array_equal(a.hidden_T, b.hidden_T)
    other = plan_views(SAMPLES, EVERYTHING, "views", 0, 8)
    assert other.fused != plan.fused
    assert other.wishes != plan.wishes


def test_wishes_do_not_move_the_other_views() -> None:
    plain, more = (plan_views(SAMPLES, config, "views", 3, 4) for config in (CONFIG, EVERYTHING))
    assert plain.fused == more.fused
    assert [m and m.modality for m in plain.masked] == [m and m.modality for m in more.masked]
    assert not any(plain.wishes)


def test_only_what_is_present_is_planned() -> None:
    plan = plan_views(SAMPLES, CONFIG, "views", 1, 0)
    for s, members, masking in zip(SAMPLES, plan.fused, plan.masked, strict=True):
        assert members is None or (len(members) > 1 and members <= set(s.media))
        if masking is not None:
            assert masking.modality in s.media
            assert masking.helpers <= set(s.media) - {masking.modality}
            assert masking.hidden_T.any()
    assert {len(m) for m in plan.fused if m} == {2, 3}
    assert {m.modality for m in plan.masked if m} == set(Modality)


def test_objectives_that_are_off_plan_nothing() -> None:
    contrastive = ContrastiveConfig(fused=0.0)
    off = ObjectivesConfig(
        contrastive=contrastive,
        masked=MaskedConfig(weight=0.0),
        target=TargetConfig(weight=0.0),
        causal=CausalConfig(weight=0.0),
    )
    for config in (ObjectivesConfig(contrastive=contrastive), off):
        plan = plan_views(SAMPLES, config, "views", 1, 0)
        assert set(plan.fused) == {None} == set(plan.masked)
        assert not any(plan.wishes)


def wishes(samples: list[Sample], config: ObjectivesConfig = EVERYTHING) -> list[list[Wish]]:
    return plan_views(samples, config, "views", 0, 0).wishes


def rates(target: float, causal: float) -> ObjectivesConfig:
    return ObjectivesConfig(target=TargetConfig(rate=target), causal=CausalConfig(rate=causal))


def many(kin: frozenset[Modality], *modalities: Modality, asks: bool = False) -> list[Sample]:
    bare = sample("", *modalities)
    return [replace(bare, id=f"s{i}", kin=kin, asks=asks) for i in range(400)]


@pytest.mark.parametrize(("target", "causal"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)])
def test_rates_of_0_and_1(target: float, causal: float) -> None:
    for made in wishes(many(frozenset(), V, T, S), rates(target, causal)):
        assert [w.modality is T for w in made] == [False] * int(target) + [True] * int(causal)


@pytest.mark.parametrize(("name", "modality"), [("image", V), ("speech", S)])
def test_only_what_is_to_be_generated_is_a_target(name: Any, modality: Modality) -> None:
    target = TargetConfig(rate=1.0, modalities=(name,))
    for present in ((V, T, S), (modality, T)):
        made = wishes(many(frozenset(), *present), replace(EVERYTHING, target=target, length=None))
        targets = {wish.modality for found in made for wish in found} - {T}
        assert targets == {modality}
    other = ({V, S} - {modality}).pop()
    assert not any(
        wishes(
            many(frozenset(), other), replace(EVERYTHING, target=target, length=None, causal=None)
        )
    )


def test_the_order_of_targets_says_nothing() -> None:
    samples = many(frozenset(), V, T, S)
    turned = replace(EVERYTHING, target=TargetConfig(modalities=("speech", "image")))
    assert wishes(samples, turned) == wishes(samples, EVERYTHING)


def test_a_rate_is_that_of_the_samples() -> None:
    made = wishes(many(frozenset(), V, T, S), rates(0.3, 0.7))
    targets = sum(w.modality is not T for found in made for w in found)
    texts = sum(w.modality is T for found in made for w in found)
    assert abs(targets / 400 - 0.3) < 0.08
    assert abs(texts / 400 - 0.7) < 0.08


def test_a_sample_gets_as_many_texts_as_the_rate_says() -> None:
    made = wishes(many(frozenset({T}), V, T, S), rates(0.0, 2.5))
    assert {len(found) for found in made} == {2, 3}
    assert abs(sum(map(len, made)) / 400 - 2.5) < 0.08
    assert all(len({w.again for w in found}) == len(found) for found in made)
    assert any(found[0].members != found[1].members for found in made)
    once = wishes(many(frozenset({T}), V, T, S), rates(0.0, 1.0))
    assert {w.again for found in once for w in found} == {()}


def test_a_target_is_never_predicted_from_itself() -> None:
    for made in wishes(many(frozenset(), V, T, S)):
        for wish in made:
            assert not wish.kin
            assert wish.modality not in wish.members
    assert {w.modality for found in wishes(many(frozenset(), V, T, S)) for w in found} == {V, T, S}


@pytest.mark.parametrize("modality", list(Modality))
def test_the_own_modality_is_observed_only_where_the_target_is_another(modality: Modality) -> None:
    found = [
        wish
        for made in wishes(many(frozenset({modality}), V, T, S))
        for wish in made
        if wish.modality is modality
    ]
    assert {wish.kin for wish in found} == {False, True}
    assert all((modality in wish.members) == wish.kin for wish in found)


def test_what_a_sample_lacks_comes_from_its_kin() -> None:
    found = [wish for made in wishes(many(frozenset({V}), T)) for wish in made]
    assert {(wish.modality, wish.kin) for wish in found} == {(V, True), (T, False)}
    assert {wish.members for wish in found if wish.modality is V} == {frozenset(), frozenset({T})}
    assert {wish.members for wish in found if wish.modality is T} == {frozenset()}


def test_a_sample_with_nothing_to_predict_gets_no_wish() -> None:
    assert not any(wishes(many(frozenset(), T), rates(1.0, 0.0)))
    assert not any(wishes(many(frozenset(), V, S), rates(0.0, 1.0)))


@pytest.mark.parametrize("drop", [0.0, 0.25, 1.0])
def test_the_condition_is_dropped_at_its_rate(drop: float) -> None:
    config = ObjectivesConfig(
        target=TargetConfig(rate=1.0, drop_condition=drop),
        causal=CausalConfig(rate=1.0, drop_condition=drop),
    )
    for place in (0, 1):
        dropped = [not found[place].members for found in wishes(many(frozenset(), V, T, S), config)]
        assert abs(np.mean(dropped) - drop) < (0.07 if 0 < drop < 1 else 1e-9)


def test_every_set_of_members_occurs() -> None:
    config = ObjectivesConfig(causal=CausalConfig(rate=1.0, drop_condition=0.1))
    found = Counter(made[0].members for made in wishes(many(frozenset(), V, T, S), config))
    assert set(found) == {frozenset(), frozenset({V}), frozenset({S}), frozenset({V, S})}


def test_conditions_occur_as_their_weights_say() -> None:
    config = ObjectivesConfig(
        causal=CausalConfig(
            rate=1.0,
            drop_condition=0.0,
            conditions={"image": 3.0, "image+speech": 1.0, "text": 0.0},
        )
    )
    whole = many(frozenset({T}), V, T, S)
    found = Counter(made[0].members for made in wishes(whole, config))
    assert set(found) == {frozenset({V}), frozenset({V, S})}
    assert abs(found[frozenset({V})] / found.total() - 0.75) < 0.07
    pictures = wishes(many(frozenset({T}), V, T), config)
    assert {w.members for made in pictures for w in made} == {frozenset({V})}
    assert not any(wishes(many(frozenset({T}), T), config)), "it has none of what has a weight"


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_answers_are_the_share_that_the_configuration_says(share: float) -> None:
    config = ObjectivesConfig(causal=CausalConfig(rate=1.0, answers=share))
    made = wishes(many(frozenset(), V, T, asks=True), config)
    answers = np.mean([w.answer for found in made for w in found])
    assert abs(answers - share) < (0.07 if 0 < share < 1 else 1e-9)


def test_answers_are_asked_only_where_there_is_a_question() -> None:
    config = rates(0.0, 1.0)
    without = [w for made in wishes(many(frozenset(), V, T), config) for w in made]
    assert not any(wish.answer for wish in without)
    found = [w for made in wishes(many(frozenset(), V, T, asks=True), config) for w in made]
    answers = [wish for wish in found if wish.answer]
    assert 140 < len(answers) < 260
    assert {wish.modality for wish in answers} == {T}
    assert {wish.members for wish in answers} == {frozenset({V})}
    whole = [w for made in wishes(many(frozenset(), V, T, S, asks=True), config) for w in made]
    contexts = Counter(wish.members for wish in whole if wish.answer)
    assert set(contexts) == {frozenset({V}), frozenset({S}), frozenset({V, S})}
    assert contexts[frozenset({V})] > 0.7 * contexts.total()
    alone = [w for made in wishes(many(frozenset(), T, asks=True), config) for w in made]
    assert {wish.members for wish in alone if wish.answer} == {frozenset()}


@pytest.mark.parametrize("size", [1, 2, 16, 100])
def test_hidden_codes_follow_a_cosine(size: int) -> None:
    drawn = [draw_hidden_codes(size, 0, step, "id") for step in range(400)]
    counts = np.array([hidden.sum() for hidden in drawn])
    assert counts.min() >= 1
    assert counts.max() == size
    # the mean of the cosine of an even draw; rounding up adds half a code
    expected = 1.0 if size == 1 else 2 / np.pi + 0.5 / size
    assert abs(counts.mean() / size - expected) < 0.06
    assert np.array_equal(draw_hidden_codes(size, 0, 3, "id"), drawn[3])
    assert np.array(drawn).mean(0).std() < 0.05, "every place is hidden equally often"


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
