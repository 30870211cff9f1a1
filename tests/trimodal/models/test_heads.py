import numpy as np
import scipy.fft
import torch

from trimodal.batch import Medium, Modality, TokenBatch, pack_media
from trimodal.models.heads import EmbeddingHead, PredictionHead
from trimodal.testing import assert_close
from trimodal.vocabulary import Range


def texts(*lengths: int) -> TokenBatch:
    media = [Medium(Modality.TEXT, torch.zeros(n, dtype=torch.int64), n, (n, 1)) for n in lengths]
    return pack_media(media).tokens


def test_an_embedding_of_order_0_is_the_projected_mean() -> None:
    head = EmbeddingHead(8, 4, orders=0)
    x = torch.randn(5, 8)
    expected = head.projection(torch.stack([x[:2].mean(0), x[2:].mean(0)]))
    assert_close(head(x, texts(2, 3)), expected, "fp32")


def test_moments_are_those_of_the_cosine_transform() -> None:
    """Of a picture by the separable DCT-II of scipy, whose axes are rows and columns."""
    rows, columns = 3, 5
    picture = Medium(Modality.VISION, torch.zeros(15, 12), 15, (rows, columns))
    x = torch.randn(15, 4, dtype=torch.float64)
    head = EmbeddingHead(4, 20, orders=2).double()
    head.projection = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    head.projection.weight = x
    found = head(x, pack_media([picture]).tokens).reshape(5, 4)
    grid = np.asarray(scipy.fft.dctn(x.reshape(3, 5, 4).numpy(), axes=(0, 1), norm="ortho"))
    grid = grid / (rows * columns) ** 0.5
    expected = [grid[0, 0], grid[1, 0], grid[2, 0], grid[0, 1], grid[0, 2]]
    assert_close(found, np.stack(expected), "fp32")


def test_an_embedding_knows_the_order_of_its_tokens() -> None:
    x = torch.randn(3, 8)
    for orders, differs in ((0, False), (1, True)):
        head = EmbeddingHead(8, 4, orders)
        forward, backward = head(x, texts(3)), head(x.flip(0), texts(3))
        assert bool((forward - backward).abs().max() > 1e-3) is differs


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
