from dataclasses import replace

import numpy as np
import scipy.fft
import torch

from trimodal.batch import Medium, Modality, TokenBatch, pack_media
from trimodal.config import TransformerConfig
from trimodal.models.heads import BEST_RQ_CODES, EmbeddingHead, PredictionHead
from trimodal.testing import assert_close, tiny_model_config
from trimodal.tokenizers import BestRQ
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


CONFIG = replace(
    tiny_model_config(),
    trunk=TransformerConfig(width=8, num_heads=2),
    vision_codes=4,
    speech_codes=2,
    best_rq_codebooks=3,
)


def head() -> PredictionHead:
    return PredictionHead(CONFIG, {Modality.VISION: 12, Modality.SPEECH: 20})


def test_ids_are_scored_over_their_range_alone() -> None:
    table = torch.randn(30, 8, requires_grad=True)
    logits = head().ids(torch.randn(3, 8), table, Range(10, 5)).logits()
    assert logits.shape == (3, 5)
    logits.sum().backward()
    assert table.grad is not None
    assert table.grad.abs().sum(1).nonzero().flatten().tolist() == list(range(10, 15))


def test_values_have_the_size_of_the_features() -> None:
    assert head().values(torch.randn(3, 8), Modality.SPEECH).shape == (3, 20)


def test_each_code_of_a_token_has_logits_of_its_own() -> None:
    made, table, x = head(), torch.randn(30, 8), torch.randn(3, 8)
    for modality, cells in ((Modality.VISION, 4), (Modality.SPEECH, 2)):
        logits = made.codes(x, table, modality, Range(10, 5)).logits()
        assert logits.shape == (3, cells, 5)
        assert float((logits[:, 0] - logits[:, 1]).abs().max().detach()) > 1e-3
        alone = made.codes(x[1:2], table, modality, Range(10, 5)).logits()
        assert_close(alone[0], logits[1], "fp32")


def test_random_quantisation_has_logits_of_each_codebook() -> None:
    made = head()
    assert made.quantised(torch.randn(2, 8)).shape == (2, 3, BEST_RQ_CODES)
    targets = BestRQ(num_mels=4, stride=4, num_codebooks=3).targets(torch.randn(400, 4))
    assert targets.shape == (100, 3)
    assert int(targets.max()) < BEST_RQ_CODES
    assert PredictionHead(tiny_model_config(), {}).best_rq is None


def test_the_deviation_of_a_length_has_a_floor() -> None:
    made = head()
    torch.nn.init.constant_(made.length.weight, 0.0)
    for raw, least in ((-100.0, 0.05), (2.0, 0.3)):
        torch.nn.init.constant_(made.length.bias, raw)
        answer = made.lengths(torch.randn(5, 8))
        assert answer.shape == (5, 2)
        assert_close(answer[:, 0], torch.full((5,), raw), "fp32")
        assert (answer[:, 1].exp() >= least * (1 - 1e-6)).all()


def test_autocast_decides_within_the_model() -> None:
    """Whoever takes the loss later, out of reach of autocast, computes in the same type."""
    made, table = head(), torch.randn(30, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        scores = made.ids(torch.randn(3, 8), table, Range(10, 5))
    assert scores.h_KD.dtype is torch.bfloat16
    scores.cross_entropy(torch.tensor([0, 4, 1])).backward()
    assert table.grad is not None
    assert table.grad.dtype is torch.float32
    assert table.grad[10:15].any()


def test_nothing_of_the_head_is_left_out() -> None:
    made = head()
    made.unused().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_half_precision_is_scored_in_single() -> None:
    made, x = head().bfloat16(), torch.randn(3, 8).bfloat16()
    table = torch.randn(30, 8).bfloat16()
    scores = [
        made.ids(x, table, Range(10, 5)),
        made.codes(x, table, Modality.VISION, Range(10, 5)),
    ]
    answers = [made.lengths(x), made.quantised(x), made.values(x, Modality.SPEECH)]
    answers += [score.logits() for score in scores]
    answers.append(scores[0].cross_entropy(torch.tensor([0, 4, 1])))
    assert {answer.dtype for answer in answers} == {torch.float32}
