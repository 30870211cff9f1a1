import torch

from trimodal.batch import Matching, Medium, Modality, Sample
from trimodal.config import MatchingConfig
from trimodal.objectives.matching import draw_tuples, pack_tuples


def sample(name: str, size: int) -> Sample:
    chosen = list(Modality)[:size]
    media = {m: Medium(m, torch.zeros(4, 2), 4, (4, 1)) for m in chosen}
    return Sample(name, media, group=len(name))


SAMPLES = [sample(f"s{i}", 1 + i % 3) for i in range(600)]
CONFIG = MatchingConfig(weight=1.0, rate=1.0)


def draw_matching(
    samples: list[Sample], config: MatchingConfig | None, *keys: int
) -> Matching | None:
    return pack_tuples(samples, draw_tuples(samples, config, *keys))


def test_only_tuples_of_several_media_are_drawn() -> None:
    matching = draw_matching(SAMPLES, CONFIG, 0, 0)
    assert matching is not None
    assert matching.sample_V.tolist() == [i for i in range(600) if i % 3]
    assert bool((matching.wrong_V3 <= matching.members_V3).all())
    assert bool((matching.members_V3.sum(1) > matching.wrong_V3.sum(1)).all())
    assert matching.group_N.tolist() == [s.group for s in SAMPLES]


def test_every_set_partition_is_about_as_likely() -> None:
    matching = draw_matching(SAMPLES, CONFIG, 0, 0)
    assert matching is not None
    triples = matching.members_V3.sum(1) == 3
    wrong = matching.wrong_V3[triples]
    counts = [int((wrong.sum(1) == 0).sum()), *(wrong[wrong.sum(1) == 1].sum(0).tolist())]
    counts.append(int((wrong.sum(1) == 2).sum()))
    assert sum(counts) == 200
    assert all(22 <= count <= 60 for count in counts)
    pairs = matching.wrong_V3[~triples].sum(1)
    assert 70 <= int((pairs == 1).sum()) <= 130


def test_a_draw_depends_on_keys_and_sample_alone() -> None:
    some, other = SAMPLES[30:60], SAMPLES[45:75]
    a, b = (draw_matching(samples, CONFIG, 3, 4) for samples in (some, other))
    assert a is not None
    assert b is not None
    shared_a, shared_b = a.sample_V >= 15, b.sample_V < 15
    assert torch.equal(a.wrong_V3[shared_a], b.wrong_V3[shared_b])
    assert torch.equal(a.draw_V3[shared_a], b.draw_V3[shared_b])


def test_an_objective_that_is_off_draws_nothing() -> None:
    assert draw_matching(SAMPLES, None, 0) is None
    assert draw_matching(SAMPLES, MatchingConfig(weight=0.0, rate=1.0), 0) is None
    assert draw_matching(SAMPLES, MatchingConfig(weight=1.0, rate=0.0), 0) is None
    assert draw_matching(SAMPLES[:1], CONFIG, 0) is None
