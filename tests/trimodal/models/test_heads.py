import torch

from trimodal.batch import Modality
from trimodal.models.heads import EmbeddingHead, PredictionHead
from trimodal.testing import assert_close
from trimodal.vocabulary import Range


def test_the_embedding_is_the_projected_mean() -> None:
    head = EmbeddingHead(8, 4)
    x = torch.randn(5, 8)
    z = head(x, torch.tensor([0, 2, 5]))
    expected = head.projection(torch.stack([x[:2].mean(0), x[2:].mean(0)]))
    assert_close(z, expected, "fp32")


def test_ids_are_scored_over_their_range_alone() -> None:
    head = PredictionHead(8, {Modality.VISION: 12})
    table = torch.randn(30, 8, requires_grad=True)
    logits = head.ids(torch.randn(3, 8), table, Range(10, 5))
    assert logits.shape == (3, 5)
    logits.sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum(1).nonzero().flatten().tolist() == list(range(10, 15))


def test_values_have_the_size_of_the_features() -> None:
    head = PredictionHead(8, {Modality.VISION: 12, Modality.SPEECH: 20})
    assert head.values(torch.randn(3, 8), Modality.SPEECH).shape == (3, 20)
