import torch

from trimodal_kernels.contrastive.pairs import positives, ranks


def test_ranks_are_small_and_equal_where_groups_are() -> None:
    row = torch.tensor([-(2**63), 7, 2**63 - 1, 7])
    column = torch.tensor([7, 2**63 - 1, 0, 7, -1])
    id_N, id_M = ranks(row, column)
    assert id_N.dtype is torch.int32
    assert torch.equal(id_N[:, None] == id_M, row[:, None] == column)
    assert torch.equal(id_N[:, None] == id_N, row[:, None] == row)
    assert min(id_N.min(), id_M.min()) >= 0
    assert max(id_N.max(), id_M.max()) < 9


def test_positives_are_counted_among_those_that_take_part() -> None:
    id_N, id_M = torch.tensor([0, 3, 5], dtype=torch.int32), torch.tensor([3, 0, 3, 4]).int()
    assert positives(id_N, id_M, None).tolist() == [1, 2, 0]
    assert positives(id_N, id_M, torch.tensor([0, 1, 1, 1]).bool()).tolist() == [1, 1, 0]
    assert positives(id_N, id_M, torch.zeros(4).bool()).tolist() == [0, 0, 0]
    assert positives(id_N[:0], id_M, None).tolist() == []
    assert positives(id_N, id_M[:0], None).tolist() == [0, 0, 0]
