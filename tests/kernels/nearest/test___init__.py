"""Every implementation against distances in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels import nearest
from trimodal_kernels.dispatch import VARIABLE


@pytest.fixture(params=["reference", "auto", "triton"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, request.param)


def codebooks(books: int, codes: int, width: int = 16) -> Tensor:
    return F.normalize(torch.randn(books, codes, width), dim=-1)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("size", "books", "codes", "width"),
    [
        (0, 2, 5, 16),
        (1, 1, 1, 16),
        (65, 2, 129, 16),
        (63, 1, 128, 16),
        (5, 3, 300, 7),
        (4, 0, 3, 16),
    ],
)
def test_it_is_the_nearest(size: int, books: int, codes: int, width: int) -> None:
    x_TD, codebooks_CKD = 3 * torch.randn(size, width), codebooks(books, codes, width)
    index_TC = nearest(x_TD, codebooks_CKD)
    assert index_TC.dtype is torch.int64
    assert index_TC.shape == (size, books)
    unit_TD = F.normalize(x_TD.double(), dim=-1)
    for book in range(books):
        distance_TK = torch.cdist(unit_TD, codebooks_CKD[book].double())
        best_T = distance_TK.min(1).values
        chosen_T = distance_TK.gather(1, index_TC[:, book : book + 1])[:, 0]
        near = distance_TK.topk(min(2, codes), largest=False).values
        clear_T = near[:, -1] - near[:, 0] > 1e-4
        assert torch.equal(chosen_T[clear_T], best_T[clear_T])
        assert ((chosen_T - best_T).abs() < 1e-4).all()


@pytest.mark.usefixtures("path")
def test_of_equals_the_first_is_taken() -> None:
    # signs alone, whose products are exact in whatever order and width a machine adds them up
    codebook = (torch.randn(1, 10, 16).sign() / 4).repeat(1, 30, 1)
    x_TD = torch.randn(20, 16).sign()
    index = nearest(x_TD, codebook)[:, 0]
    assert index.tolist() == (x_TD @ codebook[0].T).numpy().argmax(1).tolist()
    assert int(index.max()) < 10
    assert nearest(torch.zeros(3, 16), codebooks(2, 150)).tolist() == [[0, 0]] * 3


@pytest.mark.usefixtures("path")
def test_inputs_need_not_be_contiguous() -> None:
    x_TD, codebooks_CKD = torch.randn(9, 16), codebooks(2, 40)
    strided_CKD = codebooks_CKD.transpose(0, 2).contiguous().transpose(0, 2)
    found = nearest(x_TD.T.contiguous().T, strided_CKD)
    assert torch.equal(found, nearest(x_TD, codebooks_CKD))


@pytest.mark.usefixtures("path")
def test_it_compiles_and_has_no_gradient() -> None:
    x_TD, codebooks_CKD = torch.randn(5, 16, requires_grad=True), codebooks(2, 20)
    compiled = torch.compile(nearest, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x_TD, codebooks_CKD), nearest(x_TD, codebooks_CKD))
    assert not nearest(x_TD, codebooks_CKD).requires_grad


@pytest.mark.parametrize(
    ("x", "books", "message"),
    [
        (torch.zeros(2, 16), torch.zeros(1, 5, 8), r"vectors \(2, 16\) for codebooks \(1, 5, 8\)"),
        (torch.zeros(2, 16), torch.zeros(1, 0, 16), r"codebooks \(1, 0, 16\)"),
        (torch.zeros(2, 16), torch.zeros(5, 16), r"codebooks \(5, 16\)"),
        (torch.zeros(2, 16), torch.zeros(1, 5, 16).double(), "codebooks of torch.float64"),
        (torch.zeros(2, 16).half(), torch.zeros(1, 5, 16).half(), "vectors of torch.float16"),
    ],
)
def test_what_does_not_fit_is_refused(x: Tensor, books: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(x, books)
