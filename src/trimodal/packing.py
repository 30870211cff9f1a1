"""First-fit packing to a token budget; the one packer of training, inference and serving.

for indices in first_fit([s.num_tokens for s in samples], budget=16_384): ...
"""

import heapq
from collections.abc import Sequence


def first_fit(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Put each item into the first bin that still holds it.

    Args:
        costs: tokens of each item, in the order in which they came.
        budget: tokens a bin holds; an item above it gets a bin of its own.

    Returns:
        Indices of the items of each bin, in rising order.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    first_open = 0
    for index, cost in enumerate(costs):
        chosen = next((b for b in range(first_open, len(bins)) if room[b] >= cost), None)
        if chosen is None:
            bins.append([])
            room.append(budget)
            chosen = len(bins) - 1
        bins[chosen].append(index)
        room[chosen] -= cost
        while first_open < len(bins) and room[first_open] <= 0:
            first_open += 1
    return bins


def balance(costs: Sequence[float], shares: int) -> list[list[int]]:
    """Share items out, as many to each, so that the sums of their costs lie near each other.

    The dearest come first, each to the share that costs least so far and has room (Graham, 1969).

    Args:
        costs: of each item; `shares` divides their number.
        shares: how many there are.

    Returns:
        Indices of the items of each share, in rising order.
    """
    most = len(costs) // shares
    found: list[list[int]] = [[] for _ in range(shares)]
    cheapest = [(0.0, share) for share in range(shares)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        cost, share = heapq.heappop(cheapest)
        found[share].append(index)
        if len(found[share]) < most:
            heapq.heappush(cheapest, (cost + costs[index], share))
    return [sorted(indices) for indices in found]
