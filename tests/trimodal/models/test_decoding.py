import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.assembly import Writing, assemble
from trimodal.batch import Modality, Sample, Target
from trimodal.config import SCHEDULES
from trimodal.errors import ConfigError, NumericError
from trimodal.models import TrimodalModel
from trimodal.models import decoding as module
from trimodal.models.decoding import (
    Codes,
    Decoding,
    Drafts,
    Grown,
    Texts,
    _draw,
    _filled,
    draw_length,
)
from trimodal.models.prefix import Prefix
from trimodal.vocabulary import Special, Vocabulary, prompt

V, T, S = Modality
NO_IDS = torch.zeros(0, dtype=torch.int64)
GREEDY = Decoding(temperature=0.0, max_tokens=6)


def prefix_of(
    model: TrimodalModel, samples: list[Sample], modality: Modality, room: int, guided: bool
) -> Prefix:
    target = Target(modality, NO_IDS, (0, 1), prompt(modality))
    writings = [Writing(target, frozenset(sample.media)) for sample in samples]
    if guided:
        samples = samples + [replace(sample, media={}) for sample in samples]
        writings = writings + [Writing(target, frozenset())] * len(writings)
    return Prefix(model, samples, writings, [room] * len(samples))


def finished(drafts: Drafts) -> tuple[list[Mapping[int, Grown]], list[Target]]:
    """What each step said, and the targets in the order of their numbers."""
    said, done = [], {}
    while len(drafts):
        progress = drafts.step()
        said.append(progress.grown)
        done |= progress.done
    return said, [done[i] for i in range(len(done))]


def texts_of(
    prefix: Prefix, begun: list[list[int]], decoding: Decoding, seeds: list[int]
) -> tuple[list[Mapping[int, Grown]], list[list[int]]]:
    """What each step said, and the texts."""
    drafts = Texts()
    ids = [torch.tensor(text, dtype=torch.int64) for text in begun]
    targets = [Target(T, text, (len(text), 1), prompt(T)) for text in ids]
    drafts.begin(range(len(begun)), prefix, targets, [decoding] * len(begun), seeds)
    said, done = finished(drafts)
    return said, [target.ids.tolist() for target in done]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: must be at least 0, got -1.0"),
        ({"temperature": math.nan}, "temperature: must be at least 0, got nan"),
        ({"temperature": math.inf}, "temperature: must be at least 0, got inf"),
        ({"guidance": -0.5}, "guidance: must be at least 0, got -0.5"),
        ({"guidance": 100.5}, "guidance: must be at most 100, got 100.5"),
        ({"earliness": -1.0}, "earliness: must be at least 0, got -1.0"),
        ({"choice_temperature": -1.0}, "choice_temperature: must be at least 0, got -1.0"),
        ({"top_p": 0.0}, "top_p: 0.0 is not in (0, 1]"),
        ({"top_p": 1.5}, "top_p: 1.5 is not in (0, 1]"),
        ({"steps": 0}, "steps: must be at least 1, got 0"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1, got 0"),
        ({"redraws": -1}, "redraws: must be at least 0, got -1"),
        ({"schedule": "cubic"}, "schedule: must be cosine or linear, got 'cubic'"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Decoding(**options)
    assert str(caught.value) == message


P = np.array([0.5, 0.05, 0.25, 0.2])


def draws(decoding: Decoding, p: np.ndarray = P, size: int = 20_000) -> np.ndarray:
    """How often each id is drawn."""
    rows = np.tile(np.log(p), (size, 1))
    found = _draw(rows, np.random.default_rng(0).random(size), decoding)
    return np.bincount(found, minlength=len(p)) / size


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    expected = P ** (1 / temperature)
    expected /= expected.sum()
    # 4 standard deviations of a frequency
    bound = 4 * np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(draws(Decoding(temperature=temperature)) - expected) < bound).all()


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, [0]), (0.5, [0]), (0.6, [0, 2]), (0.9, [0, 2, 3]), (1.0, range(4))]
)
def test_only_the_likeliest_are_drawn(top_p: float, kept: list[int]) -> None:
    found = draws(Decoding(top_p=top_p))
    expected = np.where(np.isin(np.arange(4), kept), P, 0)
    assert set(np.flatnonzero(found)) == set(kept)
    assert np.abs(found - expected / expected.sum()).max() < 0.015


def test_temperature_0_takes_the_likeliest() -> None:
    rows = np.log(np.random.default_rng(1).dirichlet(np.ones(9), 50))
    found = _draw(rows, np.random.default_rng(0).random(50), Decoding(temperature=0.0))
    assert np.array_equal(found, rows.argmax(-1))
    for temperature in (1e-3, 1e-300):
        almost = Decoding(temperature=temperature)
        assert np.array_equal(_draw(rows[:, :4], np.full(50, 0.5), almost), rows[:, :4].argmax(-1))


def test_the_ends_of_the_unit_interval_draw_something_likely() -> None:
    p = np.array([[0.0, 0.7, 0.3, 0.0]])
    with np.errstate(divide="ignore"):
        rows = np.log(p)
    for draw, expected in ((0.0, 1), (np.nextafter(1.0, 0.0), 2)):
        assert _draw(rows, np.array([draw]), Decoding()).tolist() == [expected]


def test_a_draw_depends_on_its_own_row() -> None:
    rng = np.random.default_rng(0)
    rows, numbers = np.log(rng.dirichlet(np.ones(30), 40)), rng.random(40)
    together = _draw(rows, numbers, Decoding(top_p=0.9))
    alone = [_draw(rows[i : i + 1], numbers[i : i + 1], Decoding(top_p=0.9))[0] for i in range(40)]
    assert together.tolist() == alone
    assert len(set(alone)) > 5


def test_lengths_are_those_of_the_distribution() -> None:
    certain = Decoding(temperature=0.0)
    assert draw_length(math.log(20), 0.0, certain, 0, 100) == 20
    assert draw_length(math.log(20), 0.0, certain, 0, 7) == 7
    assert draw_length(-50.0, 0.0, certain, 0, 7) == 1
    assert draw_length(1e9, 1.0, certain, 0, 7) == 7
    drawn = [draw_length(math.log(50), math.log(0.2), Decoding(), s, 10**6) for s in range(2000)]
    logs = np.log(drawn)
    assert abs(logs.mean() - math.log(50)) < 0.02
    assert abs(logs.std() - 0.2) < 0.02
    assert drawn[7] == draw_length(math.log(50), math.log(0.2), Decoding(), 7, 10**6)
    assert {draw_length(0.0, 1e9, Decoding(), seed, 7) for seed in range(20)} == {1, 7}


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_length_that_is_not_finite_is_refused(broken: float) -> None:
    for numbers in ((broken, 0.0), (0.0, broken)):
        with pytest.raises(NumericError, match="computed a length that is not finite"):
            draw_length(*numbers, Decoding(), 0, 7)


def by_hand(model: TrimodalModel, sample: Sample, begun: list[int], guidance: float) -> list[int]:
    """Greedy decoding by a forward of its own for every piece."""
    text = list(begun)
    known = model.known_ids(T)
    for _ in range(GREEDY.max_tokens):
        rows = []
        for members in (frozenset(sample.media), frozenset()):
            target = Target(T, torch.tensor(text, dtype=torch.int64), (len(text), 1), prompt(T))
            batch = assemble([sample], written=[[Writing(target, members)]], summaries=True)
            assert batch.views is not None
            h_TD = model.trunk(
                model.enter(model.observe(batch.media), batch.views), batch.views.tokens
            )
            rows.append(model.continuations(h_TD[-1:])[0].log_softmax(-1)[:known])
        scores = rows[1] + guidance * (rows[0] - rows[1])
        piece = int(scores.argmax())
        if piece == 0:
            break
        text.append(int(Special.END_TEXT) + piece)
    return text


@pytest.mark.parametrize("guidance", [1.0, 2.0, 0.0])
@torch.no_grad()
def test_greedy_texts_are_those_of_uncached_forwards(
    lively: TrimodalModel, conditions: list[Sample], guidance: float
) -> None:
    start = lively.vocabulary.text.start
    begun = [[], [start + 7], [start + 9, start + 3], []]
    decoding = replace(GREEDY, guidance=guidance)
    prefix = prefix_of(lively, conditions[:4], T, 8, guided=guidance != 1)
    _, found = texts_of(prefix, begun, decoding, [0] * 4)
    expected = [
        by_hand(lively, sample, text, guidance)
        for sample, text in zip(conditions[:4], begun, strict=True)
    ]
    assert found == expected
    assert len({tuple(text) for text in found}) > (1 if guidance else 0)
    for text, beginning in zip(found, begun, strict=True):
        assert text[: len(beginning)] == beginning
        assert len(text) <= len(beginning) + GREEDY.max_tokens


@torch.no_grad()
def test_a_text_stops_at_its_end(lively: TrimodalModel, conditions: list[Sample]) -> None:
    """Whichever texts have ended, the others go on as if they were alone."""
    lively.table[int(Special.END_TEXT)] *= 6
    decoding = Decoding(max_tokens=12, temperature=1.0)
    prefix = prefix_of(lively, conditions, T, 12, guided=False)
    _, found = texts_of(prefix, [[]] * 9, decoding, list(range(9)))
    lengths = {len(text) for text in found}
    assert len(lengths) > 2
    assert min(lengths) < 12
    assert not any(Special.END_TEXT in text for text in found)
    for i, sample in enumerate(conditions):
        alone = prefix_of(lively, [sample], T, 12, guided=False)
        assert texts_of(alone, [[]], decoding, [i])[1] == [found[i]]


@torch.no_grad()
def test_only_what_the_tokenizers_know_is_drawn(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    """Rows of padded capacity that outweigh all others are drawn never."""
    assert lively.processor is not None
    codes = lively.processor.codes
    assert codes is not None
    tokenizer = codes.tokenizers.speech
    assert tokenizer is not None
    pieces = lively.processor.text.num_pieces
    text, speech = lively.vocabulary.text, lively.vocabulary.speech
    assert pieces < text.size
    lively.table[text.start + pieces : text.start + text.size] *= 20
    prefix = prefix_of(lively, conditions, T, 8, guided=False)
    _, found = texts_of(prefix, [[]] * 9, Decoding(max_tokens=8), list(range(9)))
    assert max(max(text) for text in found if text) < text.start + pieces
    tokenizer.config = replace(tokenizer.config, levels=(2, 3))
    lively.table[speech.start + 6 : speech.start + speech.size] *= 20
    prefix = prefix_of(lively, conditions, S, 5, guided=False)
    empty = [codes.empty_target(S, (5, 1), prompt(S))] * 9
    drafts = Codes()
    drafts.begin(range(9), prefix, empty, [Decoding()] * 9, list(range(9)))
    _, made = finished(drafts)
    ids = torch.stack([target.ids for target in made]) - speech.start
    assert (ids >= 0).all()
    assert ids.max() < 6
    assert len(ids.unique()) > 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("steps", [1, 3, 8, 40])
@pytest.mark.parametrize(("modality", "grid"), [(V, (3, 4)), (S, (1, 1)), (S, (7, 1))])
@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_codes_are_filled_in_along_the_schedule(
    lively: TrimodalModel,
    conditions: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
    modality: Modality,
    grid: tuple[int, int],
    steps: int,
    guidance: float,
    schedule: str,
) -> None:
    seen: list[list[torch.Tensor]] = []
    extend = module.extend

    def recorded(
        sequences: list[tuple[Prefix, int]],
        ids: list[torch.Tensor],
        positions: list[np.ndarray],
        *,
        keep: bool,
    ) -> torch.Tensor:
        seen.append([i.clone() for i in ids])
        return extend(sequences, ids, positions, keep=keep)

    monkeypatch.setattr(module, "extend", recorded)
    size, mask = grid[0] * grid[1], Vocabulary.mask_id(modality)
    empty = Target(modality, torch.full((size,), mask), grid, prompt(modality))
    prefix = prefix_of(lively, conditions[:3], modality, size, guided=guidance != 1)
    decoding = Decoding(steps=steps, guidance=guidance, schedule=schedule)
    drafts = Codes()
    drafts.begin(range(3), prefix, [empty] * 3, [decoding] * 3, [0, 1, 2])
    shown, made = finished(drafts)
    start, count = lively.vocabulary.range_of(modality)
    for i, target in enumerate(made):
        assert target.grid == grid
        history = [given[i] for given in seen] + [target.ids]
        for step, ids in enumerate(history):
            left = 1 - step / steps
            share = math.cos(math.pi / 2 * step / steps) if schedule == "cosine" else left
            expected = math.floor(size * share)
            masked = int((ids == mask).sum())
            # each step finds one code at least
            assert masked == max(0, min(expected, size - step)) if step < steps else masked == 0
        for before, after in pairwise(history):
            known = before != mask
            assert torch.equal(before[known], after[known])
        # what a step shows is whole, and holds what the next step is given
        for whole, after in zip(shown, history[1:], strict=True):
            drawn, final = torch.tensor(whole[i].ids), whole[i].final
            assert (drawn != mask).all()
            assert (after[:final] != mask).all(), "what is final is what it will be"
            assert final == size or after[final] == mask
            assert torch.equal(drawn[after != mask], after[after != mask])
        assert ((target.ids >= start) & (target.ids < start + count)).all()
    if guidance != 1:
        assert all(torch.equal(given[0], given[3]) for given in seen)
    assert (empty.ids == mask).all(), "what is given is left as it is"


@torch.no_grad()
def test_codes_end_when_none_is_masked(lively: TrimodalModel, conditions: list[Sample]) -> None:
    """Each step finds one at least, so there are never more steps than codes."""
    drafts = Codes()
    sizes = [1, 3, 5]
    prefix = prefix_of(lively, conditions[:3], S, 5, guided=False)
    mask = Vocabulary.mask_id(S)
    targets = [Target(S, torch.full((n,), mask), (n, 1), prompt(S)) for n in sizes]
    drafts.begin(range(3), prefix, targets, [Decoding(steps=40)] * 3, [0, 1, 2])
    ended: dict[int, int] = {}
    for step in range(1, 41):
        if len(drafts):
            progress = drafts.step()
            for number, target in progress.done.items():
                ended[number] = step
                assert progress.grown[number] == (tuple(target.ids.tolist()), len(target.ids))
                assert (target.ids != mask).all()
    assert ended == {0: 1, 1: 3, 2: 5}


@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_what_comes_early_is_kept_early(
    lively: TrimodalModel, conditions: list[Sample], schedule: str
) -> None:
    """As many codes a step as otherwise, but with enough earliness one after the other."""
    size, steps = 12, 4
    target = Target(S, torch.full((size,), Vocabulary.mask_id(S)), (size, 1), prompt(S))
    finals: dict[float, list[int]] = {}
    for earliness in (0.0, 1.0, 1e6):
        drafts = Codes()
        decoding = Decoding(steps=steps, schedule=schedule, earliness=earliness)
        prefix = prefix_of(lively, conditions[:1], S, size, guided=False)
        drafts.begin([0], prefix, [target], [decoding], [5])
        said, _ = finished(drafts)
        finals[earliness] = [grown[0].final for grown in said]
    left = [1 - step / steps for step in range(1, steps + 1)]
    if schedule == "cosine":
        left = [math.cos(math.pi / 2 * (1 - share)) for share in left]
    assert finals[1e6] == [size - math.floor(size * share) for share in left]
    assert sum(finals[0.0]) < sum(finals[1e6])
    assert sum(finals[1.0]) <= sum(finals[1e6])


def test_only_masked_codes_are_drawn() -> None:
    """The same as if all were, and what is known were put back afterwards."""
    rng, decoding = np.random.default_rng(0), Decoding(steps=6, choice_temperature=2.0)
    log_p_TV = np.log(rng.dirichlet(np.ones(7), 12))
    for step in range(6):
        local_T = rng.integers(0, 7, 12)
        local_T[rng.permutation(12)[: int(rng.integers(1, 13))]] = mask = 9
        masked_T = local_T == mask
        drawn = np.random.default_rng(step)
        whole_T = np.where(masked_T, _draw(log_p_TV, drawn.random(12), decoding), local_T)
        left = 1 - (step + 1) / 6
        sure_T = log_p_TV[np.arange(12), whole_T] + 2 * left * drawn.gumbel(size=12)
        still = min(math.floor(12 * math.sin(math.pi / 2 * left)), masked_T.sum() - 1)
        kept_T = whole_T.copy()
        kept_T[np.argsort(np.where(masked_T, sure_T, np.inf))[: max(0, still)]] = mask
        again = np.random.default_rng(step)
        found = _filled(log_p_TV[masked_T], local_T, mask, step, decoding, again)
        assert found[0].tolist() == whole_T.tolist()
        assert found[1].tolist() == kept_T.tolist()


@torch.no_grad()
def test_each_step_says_which_texts_grew(lively: TrimodalModel, conditions: list[Sample]) -> None:
    lively.table[int(Special.END_TEXT)] *= 6
    prefix = prefix_of(lively, conditions, T, 12, guided=False)
    said, texts = texts_of(prefix, [[]] * 9, Decoding(max_tokens=12), list(range(9)))
    sizes = dict.fromkeys(range(9), 0)
    for grown in said:
        for i, (ids, final) in grown.items():
            sizes[i] += 1
            assert len(ids) == final == sizes[i]
    assert [len(text) for text in texts] == list(sizes.values())


@torch.no_grad()
def test_numbers_that_are_not_finite_are_refused(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    lively.table[lively.vocabulary.text.start + 3] = math.nan
    prefix = prefix_of(lively, conditions[:1], T, 4, guided=False)
    with pytest.raises(NumericError):
        texts_of(prefix, [[]], Decoding(), [0])
