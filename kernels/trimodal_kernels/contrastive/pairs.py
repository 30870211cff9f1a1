"""What is contrasted with what, as every implementation takes it and as it gives back."""

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """N rows and M columns; all pairs of them, whose products are never written down together."""

    a_NE: Tensor
    """Unit-norm rows."""
    b_ME: Tensor
    """Unit-norm columns."""
    id_N: Tensor
    """int32, 0 up to N + M; a row and a column of one id are a positive pair."""
    id_M: Tensor
    count_N: Tensor
    """int64, how many positives each row has among the columns that take part."""
    count_M: Tensor
    """Likewise for columns; empty if they have no loss."""
    row_N: Tensor | None
    """bool, the rows with which columns are contrasted; None for all."""
    column_M: Tensor | None
    """bool, the columns with which rows are contrasted; None for all."""
    scale: Tensor
    """Scalar."""
    bias: Tensor | None
    """Scalar of the sigmoid loss; None for the softmax."""
    both: bool
    """Columns have a loss too."""

    @property
    def exact(self) -> torch.dtype:
        """In which losses are, and sums are made."""
        return accumulator(self.a_NE.dtype)

    @property
    def whole(self) -> bool:
        """Nothing is left out on either side."""
        return self.row_N is None and self.column_M is None

    def rows_only(self) -> "Pairs":
        """The same without losses of columns."""
        return self._replace(count_M=self.count_N[:0], row_N=None, both=False)

    def turned(self) -> "Pairs":
        """Columns as rows; only the rows of what comes out have a loss."""
        return Pairs(
            self.b_ME, self.a_NE, self.id_M, self.id_N, self.count_M, self.count_N,
            None, self.row_N, self.scale, self.bias, both=False,
        )  # fmt: skip


class Losses(NamedTuple):
    """Of rows and of columns."""

    loss_N: Tensor
    loss_M: Tensor
    """Of no columns where they have no loss."""
    state_2N: Tensor
    """Of each row what the implementation's own backward pass wants to know: with the softmax the
    largest logit, and the sum of exponentials below it."""
    state_2M: Tensor


class Gradients(NamedTuple):
    """Of the four inputs that have one."""

    a_NE: Tensor
    b_ME: Tensor
    scale: Tensor
    bias: Tensor
    """0 where there is none."""


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type in which products of `dtype` are summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def ranks(group_N: Tensor, group_M: Tensor) -> tuple[Tensor, Tensor]:
    """Small ids, equal where groups are: the place of the first that is as large, over both."""
    both = torch.cat([group_N, group_M])
    ids = torch.searchsorted(both.sort().values, both, out_int32=True)
    return ids[: len(group_N)], ids[len(group_N) :]


def positives(id_N: Tensor, id_M: Tensor, column_M: Tensor | None) -> Tensor:
    """How many columns that take part have the id of each row."""
    sorted_ids = (id_M if column_M is None else id_M.where(column_M, -1)).sort().values
    last_N, first_N = (torch.searchsorted(sorted_ids, id_N, right=x) for x in (True, False))
    return last_N - first_N


def softmax_weights(grad_N: Tensor, state_2N: Tensor, count_N: Tensor) -> tuple[Tensor, Tensor]:
    """By what exponentials are multiplied, and what is taken off each positive."""
    weight_N, share_N = grad_N / state_2N[1], grad_N / count_N
    return weight_N.where(count_N > 0, 0.0), share_N.where(count_N > 0, 0.0)
