"""How much of what a step computes is no token of a sample.

share = empty / max(1.0, empty + tokens)  # empty, tokens = padding(batches, added=0)
"""

from collections.abc import Sequence

from trimodal.batch import Batch, Modality, TokenBatch

STACKS = len(Modality) + 1
"""The encoders and the trunk: each computes a token of nothing where a micro-batch has none."""


def padding(batches: Sequence[Batch], added: int) -> tuple[int, int]:
    """Rows of the encoders and the trunk that hold no token, and those that hold one.

    What is packed has none of the former. Every rank runs every module in every micro-batch, so
    one that lacks a modality, or has no views, computes an empty token in its place. The tuples of
    matching, which are packed too, are made in the forward and left out.

    Args:
        batches: micro-batches of a step, as they are computed.
        added: micro-batches of nothing that are computed besides.
    """
    empty, held = STACKS * added, 0
    for batch in batches:
        stacks = [media.tokens for media in batch.media.values()]
        stacks += [batch.views.tokens] if batch.views is not None else []
        empty += STACKS - len(stacks) + sum(map(_empty, stacks))
        held += sum(tokens.num_tokens - _empty(tokens) for tokens in stacks)
    return empty, held


def _empty(tokens: TokenBatch) -> int:
    """Rows that are in no medium and in no view."""
    bounds = tokens.cu_seqlens
    return tokens.num_tokens - int(bounds[-1] - bounds[0])
