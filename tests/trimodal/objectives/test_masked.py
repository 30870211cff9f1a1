import torch

from trimodal.batch import Batch, Modality, Prediction, TokenBatch, Views
from trimodal.config import VocabularyConfig
from trimodal.objectives.masked import hidden_counts, masked
from trimodal.testing import assert_close
from trimodal.vocabulary import Vocabulary

VOCABULARY = Vocabulary(VocabularyConfig(text=20, vision=4, speech=4))


def batch(**predictions: Prediction) -> Batch:
    from trimodal_kernels import Segments

    tokens = TokenBatch(
        torch.zeros(4, 2, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([0, 4]),
        Segments.from_lengths([4]),
    )
    none = torch.zeros(0, dtype=torch.int64)
    named = {Modality[name.upper()]: p for name, p in predictions.items()}
    views = Views(torch.arange(4), tokens, none, none, torch.zeros(0, 3).bool(), named)
    return Batch(1, {}, {}, torch.zeros(1), views)


def test_text_targets_are_local_to_their_range() -> None:
    target = torch.tensor([VOCABULARY.text.start, VOCABULARY.text.start + 19])
    logits = torch.zeros(2, 20)
    logits[0, 0] = logits[1, 19] = 50.0
    made = batch(text=Prediction(torch.tensor([0, 1]), target))
    assert_close(masked({"text": logits}, made, VOCABULARY)[Modality.TEXT], 0.0, "fp32")


def test_values_are_compared_with_features() -> None:
    made = batch(speech=Prediction(torch.tensor([0]), torch.ones(1, 6)))
    sums = masked({"speech": torch.zeros(1, 6)}, made, VOCABULARY)
    assert_close(sums[Modality.SPEECH], 1.0, "fp32")


def test_counts_add_up_over_micro_batches() -> None:
    a = batch(text=Prediction(torch.tensor([0, 1]), torch.zeros(2)))
    b = batch(
        text=Prediction(torch.tensor([2]), torch.zeros(1)),
        vision=Prediction(torch.tensor([3]), torch.zeros(1, 3)),
    )
    assert hidden_counts([a, b, Batch(1, {}, {}, torch.zeros(1))]) == [1, 3, 0]
