import pytest
import torch
import torch.nn.functional as F

from trimodal.batch import Batch, Matching, Modality, Prediction, TokenBatch, Views
from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    LengthConfig,
    MaskedConfig,
    MatchingConfig,
    ObjectivesConfig,
    TargetConfig,
    VocabularyConfig,
)
from trimodal.objectives.losses import gaussian_nll, masked_ids
from trimodal.objectives.predicted import LOSSES, NAMES, predicted, predicted_counts, weights
from trimodal.testing import assert_close
from trimodal.vocabulary import Special, Vocabulary
from trimodal_kernels import Scores, Segments

VOCABULARY = Vocabulary(VocabularyConfig(text=20, vision=4, speech=6))
V, T, S = Modality
PLAIN = ObjectivesConfig(contrastive=ContrastiveConfig())


def batch(**predictions: Prediction) -> Batch:
    tokens = TokenBatch(
        torch.zeros(4, 2, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([0, 4]),
        Segments.from_lengths([4]),
    )
    none = torch.zeros(0, dtype=torch.int64)
    views = Views(torch.arange(4), none, tokens, none, none, torch.zeros(0, 3).bool(), predictions)
    return Batch(1, {}, {}, torch.zeros(1), views)


def asked(modality: Modality, *target: object) -> Prediction:
    return Prediction(modality, torch.arange(len(target)), torch.tensor(target))


def scored(logits: torch.Tensor) -> Scores:
    return Scores(logits, torch.eye(logits.shape[-1]))


def summed(
    name: str,
    answer: torch.Tensor | Scores,
    prediction: Prediction,
    config: ObjectivesConfig = PLAIN,
) -> torch.Tensor:
    sums = predicted({name: answer}, None, batch(**{name: prediction}), VOCABULARY, config)
    assert list(sums) == [name]
    return sums[name]


@pytest.mark.parametrize(
    ("name", "modality"),
    [("masked_text", T), ("masked_vision", V), ("target_vision", V), ("target_speech", S)],
)
def test_ids_are_local_to_their_range(name: str, modality: Modality) -> None:
    start, size = VOCABULARY.range_of(modality)
    logits = torch.zeros(2, size)
    logits[0, 0] = logits[1, size - 1] = 50.0
    config = ObjectivesConfig(target=TargetConfig(label_smoothing=0.0))
    right = asked(modality, start, start + size - 1)
    assert_close(summed(name, scored(logits), right, config), 0.0, "fp32")
    assert summed(name, scored(logits), asked(modality, start + 1, start), config) > 90


def test_the_end_of_a_text_comes_before_its_pieces() -> None:
    logits = torch.zeros(3, 21)
    logits[0, 0] = logits[1, 1] = logits[2, 20] = 50.0
    right = asked(T, Special.END_TEXT, VOCABULARY.text.start, VOCABULARY.text.start + 19)
    assert_close(summed("causal_text", scored(logits), right), 0.0, "fp32")


def test_each_loss_is_smoothed_as_configured() -> None:
    config = ObjectivesConfig(
        target=TargetConfig(label_smoothing=0.3),
        causal=CausalConfig(label_smoothing=0.2),
        masked=MaskedConfig(),
    )
    logits, local = torch.randn(2, 6), torch.tensor([1, 4])
    ids = Prediction(S, torch.arange(2), local + VOCABULARY.speech.start)
    assert_close(
        summed("target_speech", scored(logits), ids, config), masked_ids(logits, local, 0.3), "fp32"
    )
    assert_close(
        summed("masked_speech", scored(logits), ids, config), masked_ids(logits, local), "fp32"
    )
    logits = torch.randn(2, 21)
    ids = Prediction(T, torch.arange(2), local + Special.END_TEXT)
    assert_close(
        summed("causal_text", scored(logits), ids, config), masked_ids(logits, local, 0.2), "fp32"
    )


def test_values_are_compared_with_features() -> None:
    made = Prediction(S, torch.tensor([0]), torch.ones(1, 6))
    assert_close(summed("masked_speech", torch.zeros(1, 6), made), 1.0, "fp32")


def test_codes_of_a_token_are_averaged() -> None:
    local = torch.tensor([[0, 1], [2, 3]])
    logits = torch.randn(2, 2, 4)
    made = Prediction(V, torch.arange(2), local + VOCABULARY.vision.start)
    assert_close(summed("masked_vision", scored(logits), made), masked_ids(logits, local), "fp32")


def test_random_quantisation_has_no_range() -> None:
    target, logits = torch.tensor([[0, 7], [1023, 3]]), torch.randn(2, 2, 1024)
    made = Prediction(S, torch.arange(2), target)
    assert_close(summed("quantised_speech", logits, made), masked_ids(logits, target), "fp32")


def test_lengths_are_compared_as_logarithms() -> None:
    answer, target = torch.tensor([[1.0, 0.5], [2.0, -0.5]]), torch.tensor([1.5, 2.5])
    made = Prediction(S, torch.arange(2), target)
    assert_close(summed("length_speech", answer, made), gaussian_nll(answer, target), "fp32")


def test_counts_add_up_over_micro_batches() -> None:
    a = batch(masked_text=asked(T, 0, 0), length_speech=asked(S, 0.5))
    b = batch(masked_text=asked(T, 0), masked_vision=asked(V, 1), causal_text=asked(T, 1, 2, 3))
    bare = Batch(1, {}, {}, torch.zeros(1))
    counts = dict(zip(NAMES, predicted_counts([a, b, bare]), strict=True))
    expected = {"masked_vision": 1, "masked_text": 3, "causal_text": 3, "length_speech": 1}
    assert counts == {**dict.fromkeys(NAMES, 0), **expected}


def test_tuples_are_counted_and_classified() -> None:
    three = torch.ones(2, 3, dtype=torch.bool)
    matching = Matching(torch.tensor([0, 0]), three, three, torch.zeros(2, 3), torch.zeros(1))
    made = Batch(1, {}, {}, torch.zeros(1), matching=matching)
    assert dict(zip(NAMES, predicted_counts([made]), strict=True))["matching_tuples"] == 2
    logits, labels = torch.randn(2, 5), torch.tensor([4, 0])
    sums = predicted({}, (logits, labels), made, VOCABULARY, PLAIN)
    assert_close(sums["matching_tuples"], masked_ids(logits, labels), "fp32")


def test_a_higher_logit_of_the_right_partition_lowers_the_loss() -> None:
    """And of two media, those that only three can have take no part."""
    three = torch.ones(3, 3, dtype=torch.bool)
    matching = Matching(torch.arange(3), three, three, torch.zeros(3, 3), torch.zeros(1))
    made = Batch(1, {}, {}, torch.zeros(1), matching=matching)
    logits, labels = torch.zeros(3, 5), torch.tensor([4, 0, 2])
    logits[:2, 1:4] = -torch.inf
    logits.requires_grad_()
    predicted({}, (logits, labels), made, VOCABULARY, PLAIN)["matching_tuples"].backward()
    assert logits.grad is not None
    right = F.one_hot(labels, 5).bool()
    impossible = logits.isinf()
    assert (logits.grad[right] < 0).all()
    assert (logits.grad[~right & ~impossible] > 0).all()
    assert not logits.grad[impossible].any()


def test_what_is_left_out_has_weight_0() -> None:
    assert set(weights(PLAIN).values()) == {0.0}
    config = ObjectivesConfig(
        masked=MaskedConfig(weight=0.25),
        target=TargetConfig(weight=2.0),
        causal=CausalConfig(weight=3.0),
        length=LengthConfig(weight=0.5),
        matching=MatchingConfig(weight=4.0),
    )
    found = {name: weight for name, weight in weights(config).items() if weight}
    assert found == {"masked": 0.25, "target": 2.0, "causal": 3.0, "length": 0.5, "matching": 4.0}
    assert sorted(NAMES) == sorted(name for names in LOSSES.values() for name in names)
