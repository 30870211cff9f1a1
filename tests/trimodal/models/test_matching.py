import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from trimodal.assembly import assemble
from trimodal.batch import Batch, Matching, Modality
from trimodal.models import TrimodalModel
from trimodal.models.matching import ALL_DIFFER, NUM_CLASSES, matching_views, partition
from trimodal.testing import tiny_model

V, T, S = Modality


def tuples(groups: list[int], wrong: list[list[bool]], draw: float = 0.5) -> Matching:
    size = len(wrong)
    return Matching(
        sample_V=torch.arange(size),
        members_V3=torch.ones(size, 3, dtype=torch.bool),
        wrong_V3=torch.tensor(wrong),
        draw_V3=torch.full((size, 3), draw, dtype=torch.float64),
        group_N=torch.tensor(groups),
    )


def places(size: int) -> dict[Modality, torch.Tensor]:
    return {modality: torch.arange(size) for modality in Modality}


def test_the_classes_are_the_set_partitions() -> None:
    assert partition(3, []) == 0
    assert [partition(3, [m]) for m in Modality] == [1, 2, 3]
    assert partition(3, [V, S]) == ALL_DIFFER
    assert (partition(2, []), partition(2, [S])) == (0, ALL_DIFFER)
    assert NUM_CLASSES == 5


def test_what_is_right_stays_and_what_is_wrong_is_of_another_group() -> None:
    groups = [0, 0, 1, 1, 2, 2]
    wrong = [[False] * 3, [True, False, False], [False, True, False], [True, False, True]]
    z_NSE = torch.nn.functional.normalize(torch.randn(6, 4, 8), dim=-1)
    for draw in (0.0, 0.3, 0.7, 0.999):
        matching = tuples(groups, wrong, draw)
        views, labels = matching_views(matching, z_NSE, places(6), torch.tensor(5.0))
        assert labels.tolist() == [0, 1, 2, ALL_DIFFER]
        for i, view in enumerate(views):
            taken = [groups[place] for _, place in view.parts]
            right = [place for (m, place) in view.parts if not wrong[i][m]]
            assert set(right) == {i}
            assert len(set(taken)) == 1 + sum(wrong[i])


def test_the_wrong_medium_is_drawn_by_similarity() -> None:
    """With a large scale it is the most similar one of another group, whatever the draw."""
    z_NSE = torch.zeros(4, 4, 2)
    z_NSE[:, T] = torch.tensor([1.0, 0.0])
    angles = torch.tensor([0.0, 0.1, 1.0, 2.0])
    z_NSE[:, V] = torch.stack([angles.cos(), angles.sin()], dim=1)
    for draw in (0.0, 0.5, 0.99):
        matching = tuples([0, 0, 1, 2], [[True, False, False]], draw)
        views, _ = matching_views(matching, z_NSE, places(4), torch.tensor(100.0))
        # sample 1 is nearer, but of the same group
        assert dict(views[0].parts)[V] == 2


def test_where_every_sample_is_of_one_group_nothing_can_be_wrong() -> None:
    matching = tuples([7, 7, 7], [[True, False, True]])
    views, labels = matching_views(matching, torch.randn(3, 4, 8), places(3), torch.tensor(1.0))
    assert labels.tolist() == [0]
    assert {place for _, place in views[0].parts} == {0}


def batch(model: TrimodalModel, media: dict[str, Any], wrong: list[bool]) -> Batch:
    assert model.processor is not None
    samples = [s for s in model.processor(**media) if len(s.media) == 3]
    samples = [replace(s, group=i) for i, s in enumerate(samples)]
    matching = tuples(list(range(len(samples))), [wrong] * len(samples))
    packed = assemble(samples, summaries=model.architecture.summaries)
    return replace(packed, matching=matching)


@pytest.mark.parametrize("summaries", [True, False])
def test_the_model_answers_each_tuple(media: dict[str, Any], summaries: bool) -> None:
    model = tiny_model(summaries=summaries)
    found = model(**batch(model, media, [True, False, False]).inputs()).matching
    assert found is not None
    logits, labels = found
    assert logits.shape == (len(labels), NUM_CLASSES)
    assert set(labels.tolist()) == {1}
    with torch.no_grad():
        assert model(**batch(model, media, [True, False, False]).inputs()).matching is None


def test_two_media_have_two_classes(model: TrimodalModel, media: dict[str, Any]) -> None:
    made = batch(model, media, [True, False, False])
    assert made.matching is not None
    pair = replace(made.matching, members_V3=torch.tensor([[True, True, False]] * 3))
    found = model(**replace(made, matching=pair).inputs()).matching
    assert found is not None
    possible = found[0].isfinite().all(0).tolist()
    assert possible == [True, False, False, False, True]
    assert set(found[1].tolist()) == {ALL_DIFFER}


def test_matching_is_learnt(model: TrimodalModel, media: dict[str, Any]) -> None:
    right, wrong = (batch(model, media, [w, False, False]) for w in (False, True))
    # encoders that moved would choose other hard negatives, on some machines right before the end
    learning = [*model.trunk.parameters(), *model.matching_head.parameters()]
    optimizer = torch.optim.Adam(learning, lr=3e-3)
    losses = []
    for _ in range(100):
        total = torch.zeros(())
        for one in (right, wrong):
            found = model(**one.inputs()).matching
            assert found is not None
            total = total + torch.nn.functional.cross_entropy(*found)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
        assert any(p.grad is not None and p.grad.any() for p in model.encoders.parameters())
    assert losses[0] == pytest.approx(2 * math.log(NUM_CLASSES), rel=0.3)
    assert losses[-1] < 0.3 * losses[0]
