"""The Triton kernel against all products at once, in the interpreter or on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from trimodal_kernels.nearest.kernels import Launch, builds, nearest
from trimodal_kernels.nearest.reference import reference_nearest

SMALL = Launch(16, 16, 1, 1)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("size", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("codes", [1, 15, 16, 17, 50])
def test_every_index_is_written(monkeypatch: pytest.MonkeyPatch, size: int, codes: int) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(-7))
    x_TD = torch.randn(size, 16, dtype=torch.float64, device=DEVICE)
    codebooks_CKD = torch.randn(2, codes, 16, dtype=torch.float64, device=DEVICE)
    codebooks_CKD = F.normalize(codebooks_CKD, dim=-1)
    found = nearest(x_TD, codebooks_CKD, SMALL)
    assert torch.equal(found, reference_nearest(x_TD, codebooks_CKD))


def test_ties_between_tiles_go_to_the_lowest() -> None:
    codebook = F.normalize(torch.randn(1, 12, 16, device=DEVICE), dim=-1).repeat(1, 4, 1)
    assert int(nearest(torch.randn(20, 16, device=DEVICE), codebook, SMALL).max()) < 12


def test_it_is_built_ahead_of_time_for_matrix_units() -> None:
    assert [build.matrix for build in builds(90)] == [True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("books", "codes"), [(4, 1024), (1, 8192), (2, 1000)])
def test_real_sizes(books: int, codes: int) -> None:
    x_TD = torch.randn(5000, 16, device="cuda")
    codebooks_CKD = F.normalize(torch.randn(books, codes, 16, device="cuda"), dim=-1)
    found = nearest(x_TD, codebooks_CKD)
    unit_TD = F.normalize(x_TD.double(), dim=-1)
    product_TCK = torch.einsum("td,ckd->tck", unit_TD, codebooks_CKD.double())
    top_TC2 = product_TCK.topk(2).values
    clear_TC = top_TC2[..., 0] - top_TC2[..., 1] > 1e-4
    assert torch.equal(found[clear_TC], product_TCK.argmax(-1)[clear_TC])
    chosen_TC = product_TCK.gather(-1, found[..., None])[..., 0]
    assert ((top_TC2[..., 0] - chosen_TC) < 1e-4).all()
