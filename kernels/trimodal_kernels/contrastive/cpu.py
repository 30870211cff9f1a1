"""The losses on a CPU, some rows of the products at a time.

Forward and backward make four matrix products (the logits twice), where all logits at hand would
take three for each side. Positives of the softmax are sums over groups and need no masks.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal_kernels.contrastive.pairs import Gradients, Losses, Pairs, softmax_weights

ROWS = 256
"""At the least, rows at a time; with fewer, matrix products are slower."""
PRODUCTS = 1 << 20
"""More rows than that only up to so many products."""


def forward(pairs: Pairs) -> Losses:
    """The losses of rows and, if they are wanted and nothing is left out, of columns."""
    if pairs.column_M is not None:
        losses = forward(_without_absent(pairs)[0])
        return losses._replace(state_2M=losses.loss_N.new_zeros(2, len(pairs.b_ME)))
    work = _Work(pairs)
    return work.softmax() if pairs.bias is None else work.sigmoid(pairs.bias)


def backward(
    pairs: Pairs, grad_N: Tensor, grad_M: Tensor, state_2N: Tensor, state_2M: Tensor
) -> Gradients:
    """The gradients of what `forward` gives, weighted by `grad_N` and `grad_M`."""
    if pairs.column_M is not None:
        present, taken = _without_absent(pairs)
        found = backward(present, grad_N, grad_M, state_2N, state_2M[:, taken])
        grad_ME = torch.zeros_like(pairs.b_ME).index_copy(0, taken, found.b_ME)
        return found._replace(b_ME=grad_ME)
    work = _Work(pairs)
    if pairs.bias is None:
        return work.softmax_backward(grad_N, grad_M, state_2N, state_2M)
    return work.sigmoid_backward(grad_N, grad_M, pairs.bias)


def _without_absent(pairs: Pairs) -> tuple[Pairs, Tensor]:
    """Only the columns with which rows are contrasted, and which those are."""
    assert pairs.column_M is not None  # noqa: S101 - for the type checker
    taken = pairs.column_M.nonzero().squeeze(1)
    columns = {"b_ME": pairs.b_ME[taken], "id_M": pairs.id_M[taken]}
    return pairs._replace(**columns, column_M=None), taken


class _Work:
    """The passes over the products of all rows with all columns."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.a_NE = pairs.a_NE.to(pairs.exact) * pairs.scale
        self.b_ME = pairs.b_ME.to(pairs.exact)
        self.limit = 1 + max((int(x.max()) for x in (pairs.id_N, pairs.id_M) if len(x)), default=0)

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some rows, their logits but for a bias, and room for as many numbers."""
        rows, columns = len(self.a_NE), len(self.b_ME)
        step = min(max(ROWS, PRODUCTS // max(columns, 1)), rows)
        s_RM, room_RM = self.a_NE.new_empty(2, step, columns)
        for start in range(0, rows if columns else 0, max(step, 1)):
            here = slice(start, min(start + step, rows))
            size = here.stop - start
            yield here, torch.mm(self.a_NE[here], self.b_ME.T, out=s_RM[:size]), room_RM[:size]

    def to_rows(self, x_ME: Tensor) -> Tensor:
        """(N, ...) the sum over the columns of each row's group."""
        return self._sum(x_ME, self.pairs.id_M)[self.pairs.id_N]

    def to_columns(self, x_NE: Tensor) -> Tensor:
        """(M, ...) the sum over the rows of each column's group."""
        return self._sum(x_NE, self.pairs.id_N)[self.pairs.id_M]

    def _sum(self, x: Tensor, ids: Tensor) -> Tensor:
        sums = x.new_zeros((self.limit, *x.shape[1:]))
        return sums.index_add_(0, ids, x)

    def softmax(self) -> Losses:
        """Tops and sums as they would be one logit after the other (Milakov & Gimelshein, 2018)."""
        pairs, both = self.pairs, self.pairs.both
        state_2N, state_2M = (x.new_zeros(2, len(x)) for x in (self.a_NE, self.b_ME))
        (top_N, sum_N), (top_M, sum_M) = state_2N, state_2M
        top_M.fill_(-torch.inf)
        for here, s_RM, room_RM in self.blocks():
            top_N[here] = s_RM.amax(1)
            if both:
                new_M = torch.maximum(top_M, s_RM.amax(0))
                sum_M.mul_((top_M - new_M).exp_())
                sum_M += torch.sub(s_RM, new_M, out=room_RM).exp_().sum(0)
                top_M.copy_(new_M)
            sum_N[here] = s_RM.sub_(top_N[here, None]).exp_().sum(1)
        along_N = (self.a_NE * self.to_rows(self.b_ME)).sum(1)
        loss_N, loss_M = _softmax_loss(state_2N, pairs.count_N, along_N), top_M.new_zeros(0)
        if both:
            along_M = (self.b_ME * self.to_columns(self.a_NE)).sum(1)
            loss_M = _softmax_loss(state_2M, pairs.count_M, along_M)
        return Losses(loss_N, loss_M, state_2N, state_2M)

    def softmax_backward(
        self, grad_N: Tensor, grad_M: Tensor, state_2N: Tensor, state_2M: Tensor
    ) -> Gradients:
        """Probabilities less what positives should have."""
        both, counts = self.pairs.both, (self.pairs.count_N, self.pairs.count_M)
        weight_N1, share_N1 = (x[:, None] for x in softmax_weights(grad_N, state_2N, counts[0]))
        top_N1, top_M = state_2N[0][:, None], state_2M[0]
        raw_NE, grad_ME = torch.zeros_like(self.a_NE), torch.zeros_like(self.b_ME)
        raw_NE -= share_N1 * self.to_rows(self.b_ME)
        grad_ME -= self.to_columns(share_N1 * self.a_NE)
        weight_M = top_M
        if both:
            weight_M, share_M = softmax_weights(grad_M, state_2M, counts[1])
            raw_NE -= self.to_rows(share_M[:, None] * self.b_ME)
            grad_ME -= share_M[:, None] * self.to_columns(self.a_NE)
        for here, s_RM, room_RM in self.blocks():
            g_RM = torch.sub(s_RM, top_N1[here], out=room_RM).exp_().mul_(weight_N1[here])
            if both:
                g_RM += s_RM.sub_(top_M).exp_().mul_(weight_M)
            raw_NE[here].addmm_(g_RM, self.b_ME)
            grad_ME.addmm_(g_RM.T, self.a_NE[here])
        return self._gradients(raw_NE, grad_ME, grad_N.new_zeros(()))

    def sigmoid(self, bias: Tensor) -> Losses:
        """Nothing is kept for the backward pass."""
        losses = self.a_NE.new_zeros(len(self.a_NE)), self.a_NE.new_zeros(len(self.b_ME))
        for here, s_RM, _ in self.blocks():
            same_RM = self.pairs.id_N[here, None] == self.pairs.id_M
            s_RM += bias
            pair_RM = F.logsigmoid(torch.where(same_RM, s_RM, -s_RM)).neg_()
            losses[0][here] = pair_RM.sum(1)
            if self.pairs.both:
                losses[1].add_(pair_RM.sum(0))
        states = (x.new_zeros(2, len(x)) for x in losses)
        return Losses(losses[0], losses[1] if self.pairs.both else losses[1][:0], *states)

    def sigmoid_backward(self, grad_N: Tensor, grad_M: Tensor, bias: Tensor) -> Gradients:
        """Probabilities of the wrong answer, down for positives and up for others."""
        raw_NE, grad_ME = torch.zeros_like(self.a_NE), torch.zeros_like(self.b_ME)
        grad_bias = grad_N.new_zeros(())
        for here, s_RM, weight_RM in self.blocks():
            same_RM = self.pairs.id_N[here, None] == self.pairs.id_M
            s_RM += bias
            g_RM = torch.where(same_RM, -s_RM, s_RM).sigmoid_()
            g_RM = torch.where(same_RM, -g_RM, g_RM)
            if self.pairs.both:
                g_RM *= torch.add(grad_N[here, None], grad_M, out=weight_RM)
            else:
                g_RM *= grad_N[here, None]
            grad_bias += g_RM.sum()
            torch.mm(g_RM, self.b_ME, out=raw_NE[here])
            grad_ME.addmm_(g_RM.T, self.a_NE[here])
        return self._gradients(raw_NE, grad_ME, grad_bias)

    def _gradients(self, raw_NE: Tensor, grad_ME: Tensor, grad_bias: Tensor) -> Gradients:
        """From the gradient by `a_NE`, before it is scaled, and by `b_ME`."""
        a_NE, b_ME, scale = self.pairs.a_NE, self.pairs.b_ME, self.pairs.scale
        grad_scale = (a_NE * raw_NE).sum()
        return Gradients(
            (scale * raw_NE).to(a_NE.dtype), grad_ME.to(b_ME.dtype), grad_scale, grad_bias
        )


def _softmax_loss(state_2N: Tensor, count_N: Tensor, along_N: Tensor) -> Tensor:
    top_N, sum_N = state_2N
    return (top_N + sum_N.log() - along_N / count_N).where(count_N > 0, 0.0)
