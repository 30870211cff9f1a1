"""The trunk's views: what stands in them, who sees whom, and what is asked where."""

import math

import numpy as np
import pytest
import torch

from trimodal.batch import (
    MediaBatch,
    Medium,
    Modality,
    Route,
    Target,
    TokenBatch,
    Views,
    pack_media,
)
from trimodal.views import View, pack_views
from trimodal.vocabulary import Special, Vocabulary, prompt

V, T, S = Modality
PICTURE = Medium(V, torch.arange(18.0).view(6, 3), 6, (2, 3))
TEXT = Medium(T, torch.tensor([70, 71, 72]), 3, (3, 1))
SPEECH = Medium(S, torch.arange(16.0).view(8, 2), 2, (2, 1))
MEDIA = {V: pack_media([PICTURE]), T: pack_media([TEXT, TEXT]), S: pack_media([SPEECH])}


def codes(modality: Modality, *ids: int, rows: int | None = None) -> Target:
    rows = rows or len(ids)
    return Target(modality, torch.tensor(ids), (rows, len(ids) // rows), prompt(modality, "en"))


def written(*ids: int) -> Target:
    return Target(T, torch.tensor(ids, dtype=torch.int64), (len(ids), 1), prompt(T, "zh"))


def visible(tokens: TokenBatch) -> np.ndarray:
    """(T, T) bool, which token sees which, straight from the table."""
    seen = np.zeros((tokens.num_tokens, tokens.num_tokens), bool)
    for q0, q1, k0, k1, causal in tokens.segments.table_S5.tolist():
        block = np.ones((q1 - q0, k1 - k0), bool)
        seen[q0:q1, k0:k1] |= np.tril(block, k1 - k0 - (q1 - q0)) if causal else block
    return seen


def packed(
    *views: View, media: dict[Modality, MediaBatch] = MEDIA, summaries: bool = True
) -> Views:
    return pack_views(views, media, summaries=summaries)


def test_a_text_is_behind_its_prompt_and_read_left_to_right() -> None:
    views = packed(View([(V, 0)], 0, target=written(80, 81)))
    tokens = views.tokens
    # six patches and their summary, two special tokens, two pieces; the summaries lie behind 14
    # encoded tokens, the direct ids behind four summaries
    assert views.source_T.tolist() == [0, 1, 2, 3, 4, 5, 14, 18, 19, 20, 21]
    assert views.direct_T.tolist() == [Special.BEGIN_TEXT, Special.CHINESE, 80, 81]
    assert tokens.positions_T2[6:].tolist() == [[0, 0], [0, 0], [0, 0], [1, 1], [2, 2]]
    assert tokens.modality_T.tolist() == [V] * 7 + [T] * 4
    routes = [Route.OBSERVED] * 6 + [Route.SUMMARY] + [Route.TARGET] * 4
    assert tokens.route_T.tolist() == routes
    seen = visible(tokens)
    assert seen[:7, :7].all()
    assert not seen[:7, 7:].any()
    assert np.array_equal(seen[7:], np.tri(4, 11, 7, dtype=bool))


def test_a_text_is_asked_for_each_piece_and_its_end() -> None:
    prediction = packed(View([(V, 0)], 0, target=written(80, 81))).predictions["causal_text"]
    assert prediction.modality is T
    assert prediction.token_K.tolist() == [8, 9, 10]
    assert prediction.target.tolist() == [80, 81, Special.END_TEXT]


@pytest.mark.parametrize("parts", [[(T, 1)], [(V, 0), (T, 0), (S, 0)]])
def test_codes_see_each_other_and_are_seen_by_nothing_else(
    parts: list[tuple[Modality, int]],
) -> None:
    hidden = np.array([True, False, True, True])
    views = packed(View(parts, 0, target=codes(V, 600, 601, 602, 603, rows=2), hidden_T=hidden))
    tokens, seen = views.tokens, visible(views.tokens)
    start, end = tokens.num_tokens - 4, tokens.num_tokens
    begin = start - 2
    assert seen[start:].all()
    assert seen[begin:start, :start].all()
    assert not seen[:start, start:end].any(), "the prompt and what is observed see no code"
    assert not seen[:begin, begin:].any(), "what is observed does not see the prompt"
    assert tokens.positions_T2[start:].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert views.direct_T[2:].tolist() == [Special.MASK_VISION, 601, *[Special.MASK_VISION] * 2]
    (name,) = views.predictions
    assert name == "target_vision"
    prediction = views.predictions[name]
    assert prediction.token_K.tolist() == [start, start + 2, start + 3]
    assert prediction.target.tolist() == [600, 602, 603]


def test_the_length_of_speech_is_asked_of_the_prompt() -> None:
    hidden = np.array([True, True, False])
    views = packed(View([(T, 0)], 0, target=codes(S, 700, 701, 702), hidden_T=hidden))
    assert set(views.predictions) == {"target_speech", "length_speech"}
    length = views.predictions["length_speech"]
    assert length.token_K.tolist() == [5]
    assert length.target.tolist() == [pytest.approx(math.log(3))]
    assert not visible(views.tokens)[5, 6:].any()


def test_what_is_masked_cannot_be_read_from_the_inputs() -> None:
    hidden = np.array([True, False, True])
    first, second = (
        packed(View([(T, 0)], 0, target=codes(S, *ids), hidden_T=hidden))
        for ids in ((700, 701, 702), (710, 701, 711))
    )
    assert torch.equal(first.direct_T, second.direct_T)
    assert not torch.equal(
        first.predictions["target_speech"].target, second.predictions["target_speech"].target
    )


@pytest.mark.parametrize("modality", list(Modality))
def test_a_view_of_nothing_observes_a_token_that_says_so(modality: Modality) -> None:
    target = written(80) if modality is T else codes(modality, 700)
    hidden = None if modality is T else np.array([True])
    views = packed(View([], 0, target=target, hidden_T=hidden))
    assert views.direct_T[0] == Special.NOTHING
    assert views.tokens.route_T.tolist() == [Route.OBSERVED] + [Route.TARGET] * 3
    assert not visible(views.tokens)[0, 1:].any()


def test_a_target_without_ids_is_asked_nothing() -> None:
    empty = Target(S, torch.zeros(0, dtype=torch.int64), (0, 1), prompt(S))
    views = packed(View([(T, 0)], 0, target=empty), View([], 1, target=empty))
    assert dict(views.predictions) == {}
    assert views.tokens.cu_seqlens.tolist() == [0, 5, 7]


def test_views_do_not_see_each_other() -> None:
    hidden = np.array([True, False])
    many = [
        View([(V, 0), (T, 0)], 0, members=frozenset({V, T})),
        View([(T, 1)], 1, target=written(80, 81, 82)),
        View([], 1, target=codes(S, 700, 701), hidden_T=hidden),
        View([(S, 0)], 0, target=written(90)),
    ]
    together = packed(*many)
    seen, bounds = visible(together.tokens), together.tokens.cu_seqlens.tolist()
    for i, view in enumerate(many):
        here = slice(bounds[i], bounds[i + 1])
        alone = packed(view)
        assert np.array_equal(seen[here, here], visible(alone.tokens))
        seen[here, here] = False
        for name, prediction in alone.predictions.items():
            asked = together.predictions[name].token_K.tolist()
            assert {bounds[i] + at for at in prediction.token_K.tolist()} <= set(asked)
    assert not seen.any()
    causal = together.predictions["causal_text"]
    assert causal.target.tolist() == [80, 81, 82, Special.END_TEXT, 90, Special.END_TEXT]
    assert (causal.token_K.diff() > 0).all()
    assert together.fused_V.tolist() == [0]
    assert list(together.predictions) == sorted(together.predictions)


def test_what_a_hidden_token_stands_for() -> None:
    """Features, or codes, or random quantisation, whichever the clean medium carries."""
    hidden = np.array([False, True])
    ids = torch.tensor([[700, 701], [702, 703]])
    clean = [
        SPEECH,
        Medium(S, SPEECH.features, 2, (2, 1), codes=ids),
        Medium(S, SPEECH.features, 2, (2, 1), quantised=ids - 700),
    ]
    found = [
        packed(View([(T, 0), (S, 0)], 0, masked=(medium, hidden))).predictions for medium in clean
    ]
    assert [list(predictions) for predictions in found] == [
        ["masked_speech"],
        ["masked_speech"],
        ["quantised_speech"],
    ]
    expected = [SPEECH.features[4:].reshape(1, -1), ids[1:], ids[1:] - 700]
    for predictions, target in zip(found, expected, strict=True):
        (prediction,) = predictions.values()
        assert torch.equal(prediction.target, target)
        assert prediction.token_K.tolist() == [5]


def test_a_mask_is_the_special_token_of_its_modality() -> None:
    for modality in (V, S):
        hidden = np.array([True])
        views = packed(View([], 0, target=codes(modality, 600), hidden_T=hidden))
        assert views.direct_T[-1] == Vocabulary.mask_id(modality)


def test_without_summaries_a_view_is_the_tokens_alone() -> None:
    hidden_T = np.array([True, False])
    masked = View([(V, 0), (T, 1), (S, 0)], 0, masked=(SPEECH, hidden_T))
    text = View([(V, 0)], 0, target=written(80, 81))
    views = packed(masked, text, summaries=False)
    # 14 encoded tokens, behind which the direct ids follow at once
    expected = [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13]
    assert views.source_T.tolist() == [*expected, 0, 1, 2, 3, 4, 5, 14, 15, 16, 17]
    assert views.tokens.cu_seqlens.tolist() == [0, 11, 21]
    assert Route.SUMMARY not in views.tokens.route_T.tolist()
    assert views.predictions["masked_speech"].token_K.tolist() == [9]
    assert views.predictions["causal_text"].token_K.tolist() == [18, 19, 20]
