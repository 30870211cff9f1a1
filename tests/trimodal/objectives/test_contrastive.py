import itertools

import pytest
import torch
import torch.nn.functional as F

from trimodal.config import ContrastiveConfig
from trimodal.objectives.contrastive import NAMES, PAIRS, Embeddings, contrastive
from trimodal.testing import assert_close
from trimodal_kernels import info_nce

SCALE, BIAS = torch.tensor(8.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)


def embeddings(size: int = 8, seed: int = 0) -> Embeddings:
    """Vectors of samples with every subset of the modalities, some with a fused view."""
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(size, 4, 16, dtype=torch.float64, generator=generator), dim=-1)
    present = torch.ones(size, 4, dtype=torch.bool)
    members = torch.ones(size, 3, dtype=torch.bool)
    subsets = [
        (1, 1, 1),
        (1, 1, 0),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 1),
        (0, 1, 0),
        (1, 1, 1),
        (0, 0, 1),
    ]
    for i in range(size):
        present[i, :3] = torch.tensor(subsets[i % 8]).bool()
        present[i, 3] = sum(subsets[i % 8]) > 1
        members[i] = present[i, :3] & present[i, 3]
    members[0] = torch.tensor([False, True, True])  # leaves the image out
    return Embeddings(z, present, members, torch.arange(size) // 2)


def rows(e: Embeddings, chosen: slice) -> Embeddings:
    return Embeddings(
        e.z_NSE[chosen], e.present_NS[chosen], e.members_N3[chosen], e.group_N[chosen]
    )


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_the_shares_of_ranks_add_up(loss: str) -> None:
    e, config = embeddings(), ContrastiveConfig(loss=loss)  # pyright: ignore[reportArgumentType]
    whole, parts = contrastive(e, e, SCALE, BIAS, config, (8, 16))
    shares = [
        contrastive(rows(e, s), e, SCALE, BIAS, config, (8, 16)) for s in (slice(0, 3), slice(3, 8))
    ]
    assert_close(sum(share for share, _ in shares), whole, "fp64")
    for name in parts:
        assert_close(sum(named[name] for _, named in shares), parts[name], "fp64")


def test_order_of_samples_does_not_matter() -> None:
    e, order = embeddings(), torch.randperm(8)
    shuffled = Embeddings(
        e.z_NSE[order], e.present_NS[order], e.members_N3[order], e.group_N[order]
    )
    config = ContrastiveConfig()
    first, _ = contrastive(e, e, SCALE, BIAS, config, (16,))
    second, _ = contrastive(shuffled, shuffled, SCALE, BIAS, config, (16,))
    assert_close(second, first, "fp64")


def test_a_pair_is_the_mean_over_its_present_queries_in_both_directions() -> None:
    e = embeddings()
    _, parts = contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (16,))
    image, text = e.present_NS[:, 0], e.present_NS[:, 1]
    same = e.group_N[:, None] == e.group_N[None]
    means = []
    for a, b, queries, keys in ((0, 1, image, text), (1, 0, text, image)):
        valid = queries & (same & keys).any(1)
        groups = e.group_N[valid], e.group_N
        loss = info_nce(e.z_NSE[valid, a], e.z_NSE[:, b], *groups, SCALE, keys)
        means.append(loss.mean())
    assert_close(parts["image_text"], sum(means) / 2, "fp64")


def test_absent_vectors_get_no_gradient() -> None:
    e = embeddings()
    z = e.z_NSE.clone().requires_grad_()
    e = Embeddings(z, e.present_NS, e.members_N3, e.group_N)
    contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (16,))[0].backward()
    assert z.grad is not None
    assert not z.grad[~e.present_NS].any()
    assert torch.isfinite(z.grad).all()


def test_a_fused_view_is_not_contrasted_with_a_part_of_itself() -> None:
    e = embeddings()
    # text and speech of sample 0 are fused and its image left out
    assert e.column(3, 0)[0]
    assert not e.column(3, 1)[0]
    assert not e.column(3, 2)[0]
    # sample 1 has nothing beyond what is fused
    assert e.column(3, 0)[1]
    assert e.column(3, 1)[1]


def test_nothing_to_contrast_is_zero() -> None:
    e = embeddings()
    alone = Embeddings(
        e.z_NSE,
        e.present_NS & torch.tensor([True, False, False, False]),
        e.members_N3 & False,
        e.group_N,
    )
    loss, parts = contrastive(alone, alone, SCALE, BIAS, ContrastiveConfig(), (16,))
    assert float(loss) == 0.0
    assert parts == {}


def test_every_prefix_is_trained() -> None:
    e = embeddings()
    z = e.z_NSE.clone().requires_grad_()
    e = Embeddings(z, e.present_NS, e.members_N3, e.group_N)
    contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (4,))[0].backward()
    assert z.grad is not None
    assert z.grad[..., :4].any()
    assert not z.grad[..., 4:].any()
    short, _ = contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (4,))
    long, _ = contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (16,))
    both, _ = contrastive(e, e, SCALE, BIAS, ContrastiveConfig(), (4, 16))
    assert_close(both, (short + long) / 2, "fp64")


def of_pair(z_NSE: torch.Tensor, pair: tuple[int, int]) -> Embeddings:
    """Samples that have the two slots of a pair alone; a fused view leaves the other one out."""
    present = torch.zeros(z_NSE.shape[:2], dtype=torch.bool)
    present[:, list(pair)] = True
    members = torch.ones(len(z_NSE), 3, dtype=torch.bool)
    members[:, pair[1]] = False
    return Embeddings(z_NSE, present, members, torch.arange(len(z_NSE)))


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_nearer_partner_lowers_and_a_nearer_stranger_raises_the_loss(
    pair: tuple[int, int], loss: str
) -> None:
    config = ContrastiveConfig(loss=loss)  # pyright: ignore[reportArgumentType]
    a, b = pair
    z = torch.eye(16, dtype=torch.float64).view(4, 4, 16)  # all at right angles
    found = {}
    for stranger in (None, 0, 1, 2, 3):
        moved = z.clone()
        if stranger is not None:
            moved[0, b] = F.normalize(z[0, b] + 0.1 * z[stranger, a], dim=0)
        e = of_pair(moved, pair)
        found[stranger], _ = contrastive(e, e, SCALE, BIAS, config, (16,))
    assert found[0] < found[None]
    assert all(found[stranger] > found[None] for stranger in (1, 2, 3))


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_is_learnt_on_its_own(pair: tuple[int, int], loss: str) -> None:
    """Its vectors alone move, and their loss falls."""
    config = ContrastiveConfig(loss=loss)  # pyright: ignore[reportArgumentType]
    start = embeddings().z_NSE
    z, losses = start.clone().requires_grad_(), []
    for _ in range(40):
        e = of_pair(z, pair)
        total, parts = contrastive(e, e, SCALE, BIAS, config, (16,))
        assert list(parts) == [f"{NAMES[pair[0]]}_{NAMES[pair[1]]}"]
        losses.append(float(total.detach()))
        (grad,) = torch.autograd.grad(total, z)
        z = (z - 0.1 * grad).detach().requires_grad_()
    assert all(after < before for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.7 * losses[0]
    moved = (z != start).any(-1).any(0).nonzero().flatten().tolist()
    assert moved == sorted(pair)


def test_a_query_without_a_positive_is_all_negatives_to_the_sigmoid_loss() -> None:
    z = F.normalize(torch.randn(3, 4, 16, dtype=torch.float64), dim=-1)
    present = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    e = Embeddings(z, present, torch.zeros(3, 3, dtype=torch.bool), torch.arange(3))
    logits = SCALE * (z[:, 0] @ z[:2, 1].T) + BIAS
    sign = 2 * torch.eye(3, 2, dtype=torch.float64) - 1
    pairs = -F.logsigmoid(sign * logits)
    total, _ = contrastive(e, e, SCALE, BIAS, ContrastiveConfig(loss="sigmoid"), (16,))
    assert_close(total, (pairs.sum() / 3 + pairs.sum() / 2) / 2, "fp64")


def by_matrices(
    local: Embeddings, everyone: Embeddings, loss: str, dimensions: tuple[int, ...]
) -> torch.Tensor:
    """The same with all positives and all logits at hand."""
    shares = []
    for a, b in PAIRS:
        terms = []
        for (query, key), dim in itertools.product(((a, b), (b, a)), dimensions):
            keys, queries = everyone.column(key, query), everyone.column(query, key)
            same = everyone.group_N[:, None] == everyone.group_N
            own = local.group_N[:, None] == everyone.group_N
            logits = F.normalize(local.z_NSE[:, query, :dim], dim=-1)
            logits = SCALE * logits @ F.normalize(everyone.z_NSE[:, key, :dim], dim=-1).T
            rows = local.column(query, key)
            if loss == "infonce":
                queries = queries & (same & keys).any(1)
                log_p = logits.masked_fill(~keys, -1e9).log_softmax(1)
                share = (own & keys) / (own & keys).sum(1, keepdim=True).clamp_min(1).double()
                each = -(log_p * share).sum(1)
            else:
                each = -F.logsigmoid((logits + BIAS) * (2.0 * own - 1)).where(keys, 0.0).sum(1)
            if queries.any() and keys.any():
                terms.append(each.where(rows, 0.0).sum() / queries.sum())
        if terms:
            shares.append(torch.stack(terms).mean())
    return torch.stack(shares).mean()


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("chosen", [slice(0, 24), slice(5, 14)])
def test_it_is_what_it_would_be_with_all_pairs_at_hand(loss: str, chosen: slice) -> None:
    e, config = embeddings(24), ContrastiveConfig(loss=loss)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(1)
    groups = torch.randint(9, (24,), generator=generator) << 59
    z = e.z_NSE.clone().requires_grad_()
    e = Embeddings(z, e.present_NS, e.members_N3, groups)
    local = e if chosen == slice(0, 24) else rows(e, chosen)
    found, _ = contrastive(local, e, SCALE, BIAS, config, (4, 16))
    expected = by_matrices(local, e, loss, (4, 16))
    assert_close(found, expected, "fp64")
    (right,) = torch.autograd.grad(expected, z)
    assert_close(torch.autograd.grad(found, z)[0], right, "fp64")


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_a_rank_without_samples_of_a_pair_has_no_share_and_a_gradient(loss: str) -> None:
    e, config = embeddings(), ContrastiveConfig(loss=loss)  # pyright: ignore[reportArgumentType]
    z = e.z_NSE.clone().requires_grad_()
    e = Embeddings(z, e.present_NS, e.members_N3, e.group_N)
    share, _ = contrastive(rows(e, slice(0, 0)), e, SCALE, BIAS, config, (16,))
    assert share == 0
    share.backward()
    assert z.grad is not None
    assert not z.grad.any()
