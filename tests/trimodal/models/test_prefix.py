from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from trimodal.assembly import Writing, assemble
from trimodal.batch import Modality, Sample, Target
from trimodal.models import TrimodalModel
from trimodal.models.prefix import Prefix, null_writing
from trimodal.testing import assert_close
from trimodal.vocabulary import Vocabulary, prompt
from trimodal_kernels import Scores

V, T, S = Modality
pytestmark = pytest.mark.parametrize(
    "lively", [True, False], indirect=True, ids=["summaries", "tokens alone"]
)


@pytest.fixture(autouse=True)
def ungraded() -> Iterator[None]:
    with torch.no_grad():
        yield


def written(modality: Modality, ids: torch.Tensor, rows: int | None = None) -> Target:
    grid = (len(ids), 1) if rows is None else (rows, len(ids) // rows)
    return Target(modality, ids, grid, prompt(modality, "en"))


def asked(sample: Sample, modality: Modality) -> Writing:
    return Writing(written(modality, torch.zeros(0, dtype=torch.int64)), frozenset(sample.media))


def predicted(
    model: TrimodalModel, samples: list[Sample], writings: list[Writing]
) -> dict[str, torch.Tensor]:
    """What one uncached forward says, as in training."""
    asked, summaries = [[writing] for writing in writings], model.architecture.summaries
    batch = assemble(samples, written=asked, summaries=summaries)
    predictions = model(**batch.inputs()).predictions
    assert predictions is not None
    return {
        name: answer.logits() if isinstance(answer, Scores) else answer
        for name, answer in predictions.items()
    }


def random_ids(model: TrimodalModel, modality: Modality, sizes: list[int]) -> list[torch.Tensor]:
    start, size = model.vocabulary.range_of(modality)
    return [torch.randint(start, start + size, (n,)) for n in sizes]


def test_texts_grow_as_one_uncached_forward_reads_them(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    """At every step, for texts of different lengths of which some end before others."""
    samples = [*conditions, replace(conditions[0], media={})]
    sizes = [3, 1, 5, 2, 4, 1, 6, 2, 3, 4]
    ids = random_ids(lively, T, sizes)
    empty = [asked(sample, T) for sample in samples]
    full = [replace(w, target=written(T, i)) for w, i in zip(empty, ids, strict=True)]
    logits = predicted(lively, samples, full)["causal_text"].split([n + 1 for n in sizes])
    prefix = Prefix(lively, samples, empty, sizes)
    found = lively.continuations(prefix.last_ND)
    assert_close(found, torch.stack([rows[0] for rows in logits]), "fp64")
    for at in range(max(sizes)):
        going = [i for i, size in enumerate(sizes) if at < size]
        new = [ids[i][at : at + 1] for i in going]
        h_TD = prefix.extend(going, new, [np.full((1, 2), at + 1)] * len(going), keep=True)
        expected = torch.stack([logits[i][at + 1] for i in going])
        assert_close(lively.continuations(h_TD), expected, "fp64")


@pytest.mark.parametrize(("modality", "rows"), [(V, 2), (S, None)])
def test_codes_behind_a_prefix_are_as_one_uncached_forward_reads_them(
    lively: TrimodalModel, conditions: list[Sample], modality: Modality, rows: int | None
) -> None:
    sizes = [4, 2, 6, 4, 2, 8, 4, 6, 2]
    ids = random_ids(lively, modality, sizes)
    hidden = [np.arange(size) % 3 != 1 for size in sizes]
    targets = [written(modality, i, rows) for i in ids]
    empty = [asked(sample, modality) for sample in conditions]
    full = [
        replace(w, target=t, hidden_T=h) for w, t, h in zip(empty, targets, hidden, strict=True)
    ]
    expected = predicted(lively, conditions, full)
    prefix = Prefix(lively, conditions, empty, sizes)
    if modality is S:
        lengths = lively.prediction_head.lengths(prefix.last_ND)
        assert_close(lengths, expected["length_speech"], "fp64")
    mask = Vocabulary.mask_id(modality)
    given = [i.masked_fill(torch.from_numpy(h), mask) for i, h in zip(ids, hidden, strict=True)]
    positions = [target.positions() + 1 for target in targets]
    everything, known = list(range(len(sizes))), torch.from_numpy(np.concatenate(hidden))
    others = random_ids(lively, modality, sizes)
    prefix.extend(everything, others, positions, keep=False)  # and forgotten again
    h_TD = prefix.extend(everything, given, positions, keep=False)
    logits = lively.code_logits(h_TD, modality)[known]
    assert_close(logits, expected[f"target_{modality.name.lower()}"], "fp64")


def test_a_sequence_does_not_depend_on_the_others(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    together = Prefix(
        lively, conditions, [asked(sample, S) for sample in conditions], [3] * len(conditions)
    )
    for i, sample in enumerate(conditions):
        alone = Prefix(lively, [sample], [asked(sample, S)], [3])
        assert alone.lengths == [together.lengths[i]]
        assert_close(together.last_ND[i : i + 1], alone.last_ND, "fp64")


def test_only_what_is_kept_is_seen_later(lively: TrimodalModel, conditions: list[Sample]) -> None:
    sample = conditions[0]
    ids = random_ids(lively, T, [1, 1, 1])

    def last(*steps: tuple[int, bool]) -> torch.Tensor:
        prefix = Prefix(lively, [sample], [asked(sample, T)], [3])
        at, h_TD = 0, prefix.last_ND
        for which, keep in steps:
            h_TD = prefix.extend([0], [ids[which]], [np.full((1, 2), at + 1)], keep=keep)
            at += keep
        return h_TD

    plain = last((0, True), (1, True))
    assert_close(last((0, True), (2, False), (1, True)), plain, "exact")
    other = last((2, True), (1, True))
    assert float((other - plain).abs().max()) > 1e-3


def test_nothing_observed_is_the_same_for_every_sample(
    lively: TrimodalModel, conditions: list[Sample]
) -> None:
    nothing = [null_writing(asked(sample, V)) for sample in conditions]
    assert {writing.members for writing in nothing} == {frozenset()}
    prefix = Prefix(lively, conditions, nothing, [1] * len(conditions))
    assert prefix.lengths == [1 + len(prompt(V, "en"))] * len(conditions)
    assert_close(prefix.last_ND, prefix.last_ND[:1].expand(len(conditions), -1), "fp64")
    seen = Prefix(lively, conditions[:1], [asked(conditions[0], V)], [1])
    assert float((seen.last_ND[0] - prefix.last_ND[0]).abs().max()) > 1e-3
