import numpy as np
import pytest
import torch

from trimodal.assembly import Masking, Writing, assemble, hide
from trimodal.batch import Medium, Modality, Sample, Target
from trimodal.vocabulary import Vocabulary, prompt

V, T, S = Modality


def medium(modality: Modality, tokens: int, value: float) -> Medium:
    if modality is T:
        return Medium(T, torch.full((tokens,), 70 + int(value)), tokens, (tokens, 1))
    frames = tokens * (4 if modality is S else 1)
    grid = (1, tokens) if modality is V else (tokens, 1)
    return Medium(modality, torch.full((frames, 3), value), tokens, grid)


def sample(name: str, **tokens: int) -> Sample:
    named = ((Modality[key], size) for key, size in tokens.items())
    media = {m: medium(m, size, i + 1.0) for i, (m, size) in enumerate(named)}
    return Sample(name, media, group=len(name))


SAMPLES = [sample("a", VISION=4, TEXT=2, SPEECH=3), sample("bb", TEXT=5), sample("c", SPEECH=2)]


def test_each_medium_is_packed_once_in_the_order_of_the_samples() -> None:
    batch = assemble(SAMPLES, summaries=True)
    assert {m: b.tokens.cu_seqlens.tolist() for m, b in batch.media.items()} == {
        V: [0, 4], T: [0, 2, 7], S: [0, 3, 5]
    }  # fmt: skip
    assert {m: n.tolist() for m, n in batch.sample_N.items()} == {V: [0], T: [0, 1], S: [0, 2]}
    assert batch.views is None
    assert batch.num_tokens == 16
    assert batch.group_N.tolist() == [1, 2, 1]


def test_a_fused_view_gathers_its_members() -> None:
    batch = assemble(SAMPLES, fused=[frozenset({V, S}), None, None], summaries=True)
    views = batch.views
    assert views is not None
    # four patches, then the speech of sample 0 behind 4 patches and 7 pieces, each with the summary
    # of its medium, which lie behind all 16 tokens
    assert views.source_T.tolist() == [0, 1, 2, 3, 16, 11, 12, 13, 19]
    assert views.tokens.modality_T.tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 2]
    assert views.members_V3.tolist() == [[True, False, True]]
    assert views.fused_sample_V.tolist() == [0]
    assert dict(views.predictions) == {}


def test_a_masked_copy_follows_the_clean_media() -> None:
    hidden = np.array([False, True, True, False])
    batch = assemble(
        SAMPLES, masked=[Masking(V, hidden, frozenset({T})), None, None], summaries=True
    )
    vision, views = batch.media[V], batch.views
    assert views is not None
    assert vision.num_media == 2
    assert vision.hidden_T.tolist() == [False] * 4 + hidden.tolist()
    assert vision.features[:4].unique().tolist() == [1.0]
    assert vision.features[4:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert views.source_T.tolist() == [4, 5, 6, 7, 21, 8, 9, 22]
    prediction = views.predictions["masked_vision"]
    assert prediction.token_K.tolist() == [1, 2]
    assert prediction.target.tolist() == [[1.0] * 3] * 2
    assert views.fused_V.tolist() == []
    assert views.members_V3.dtype == torch.bool


def test_predictions_are_placed_behind_the_helpers() -> None:
    fused = [frozenset({V, T}), None, None]
    masked = [Masking(S, np.array([True, False, True]), frozenset({V, T})), None, None]
    views = assemble(SAMPLES, fused, masked, summaries=True).views
    assert views is not None
    assert views.tokens.cu_seqlens.tolist() == [0, 8, 20]
    assert views.predictions["masked_speech"].token_K.tolist() == [16, 18]
    assert views.predictions["masked_speech"].target.shape == (2, 12)


@pytest.mark.parametrize("modality", list(Modality))
def test_hiding_removes_features_of_hidden_tokens_alone(modality: Modality) -> None:
    clean = medium(modality, 3, 5.0)
    hidden = hide(clean, np.array([True, False, False]))
    rows = len(clean.features) // 3
    expected = float(Vocabulary.mask_id(T)) if modality is T else 0.0
    assert hidden.features[:rows].unique().tolist() == [expected]
    assert torch.equal(hidden.features[rows:], clean.features[rows:])
    assert clean.features.unique().numel() == 1


def test_the_given_media_are_left_as_they_are() -> None:
    """Assembling does not write to the media it is given."""
    before = SAMPLES[0].media[V].features.clone()
    assemble(
        SAMPLES, masked=[Masking(V, np.ones(4, bool), frozenset()), None, None], summaries=True
    )
    assert torch.equal(SAMPLES[0].media[V].features, before)


def test_target_views_follow_and_their_questions_belong_to_no_sample() -> None:
    question = medium(T, 4, 9.0)
    target = Target(T, torch.tensor([80, 81]), (2, 1), prompt(T, "en", answer=True))
    writings = [
        Writing(target, frozenset({V}), extra=(question,)),
        Writing(target, frozenset()),
    ]
    batch = assemble(SAMPLES, written=[writings, [], []], summaries=True)
    text, views = batch.media[T], batch.views
    assert views is not None
    assert text.tokens.cu_seqlens.tolist() == [0, 2, 7, 11]
    assert batch.sample_N[T].tolist() == [0, 1], "the question is no sample's text"
    assert text.features[7:].unique().tolist() == [79]
    # the picture, then the question behind 4 patches and 7 pieces
    assert views.source_T[:10].tolist() == [0, 1, 2, 3, 20, 11, 12, 13, 14, 23]
    assert views.tokens.cu_seqlens.tolist() == [0, 15, 21]
    assert views.fused_V.numel() == 0


def test_a_modality_of_questions_alone_has_no_clean_media() -> None:
    target = Target(T, torch.tensor([80]), (1, 1), prompt(T, answer=True))
    writing = Writing(target, frozenset({S}), extra=(medium(T, 3, 1.0),))
    batch = assemble([SAMPLES[2]], written=[[writing]], summaries=True)
    assert batch.sample_N[T].shape == (0,)
    assert batch.media[T].num_media == 1


def test_the_cost_of_a_writing_is_what_it_adds() -> None:
    target = Target(S, torch.tensor([80, 81, 82]), (3, 1), prompt(S, "en"))
    bare = assemble(SAMPLES[:1], summaries=True).num_tokens
    for members, extra in (({V, T}, ()), ({S}, (medium(T, 5, 1.0),))):
        writing = Writing(target, frozenset(members), extra, np.array([True, False, True]))
        added = assemble(SAMPLES[:1], written=[[writing]], summaries=True).num_tokens - bare
        assert writing.cost(SAMPLES[0]) == added
