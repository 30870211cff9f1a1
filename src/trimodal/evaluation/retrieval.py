"""How well vectors find what belongs to them, counted pessimistically where scores tie.

score(image_QE, text_GE, query_key_Q, gallery_key_G)["R@1"]
"""

from collections.abc import Iterator, Sequence

import numpy as np

TIE = 1e-6
"""Scores nearer than this are a tie: two equal vectors can differ so much by where they stand."""
CUTOFFS = (1, 5, 10)
CHUNK_SCORES = 8_000_000
"""Scores held at once, 32 MB."""


def number_keys(*columns: Sequence[str]) -> list[np.ndarray]:
    """Integers (N,) for each column of strings; equal strings get equal ones in every column."""
    flat = [key for column in columns for key in column]
    numbers = np.unique(np.asarray(flat, dtype=object), return_inverse=True)[1].reshape(-1)
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])


def score(
    query_QE: np.ndarray, gallery_GE: np.ndarray, query_key_Q: np.ndarray, gallery_key_G: np.ndarray
) -> dict[str, float | int] | None:
    """Rank the gallery for every query by inner product and compare with the keys.

    A tie counts against the query: what does not belong to it is put first. So a model that gives
    one vector to everything scores no better than chance.

    Args:
        query_QE: unit norm, finite.
        gallery_GE: unit norm, finite.
        query_key_Q: integers; a gallery item is relevant to a query with the same one.
        gallery_key_G: integers.

    Returns:
        `R@1`, `R@5`, `R@10` (fraction of the queries with a relevant item so far up), `mAP` (mean
        average precision over the whole ranking), `median_rank` of the first relevant item,
        `chance` (R@1 of a random ranking), `queries`, `unanswerable` (queries left out because
        nothing in the gallery is relevant to them) and `gallery`; None if no query is left.
    """
    answerable_Q = np.isin(query_key_Q, gallery_key_G)
    unanswerable = int((~answerable_Q).sum())
    query_QE, query_key_Q = query_QE[answerable_Q], query_key_Q[answerable_Q]
    queries = len(query_key_Q)
    if queries == 0:
        return None
    first_Q, precision_Q, share_Q = np.empty((3, queries))
    found = _relevant_ranks(query_QE, gallery_GE, query_key_Q, gallery_key_G)
    for i, rank_R in enumerate(found):
        first_Q[i] = rank_R[0]
        precision_Q[i] = np.mean(np.arange(1, len(rank_R) + 1) / rank_R)
        share_Q[i] = len(rank_R) / len(gallery_key_G)
    return {
        **{f"R@{k}": float(np.mean(first_Q <= k)) for k in CUTOFFS},
        "mAP": float(precision_Q.mean()),
        "median_rank": float(np.median(first_Q)),
        "chance": float(share_Q.mean()),
        "queries": queries,
        "unanswerable": unanswerable,
        "gallery": len(gallery_key_G),
    }


def _relevant_ranks(
    query_QE: np.ndarray, gallery_GE: np.ndarray, query_key_Q: np.ndarray, gallery_key_G: np.ndarray
) -> Iterator[np.ndarray]:
    """For each query the ranks (R,) of its relevant items, from 1, in rising order."""
    for rows, score_cG in _chunks(query_QE, gallery_GE):
        relevant_cG = query_key_Q[rows, None] == gallery_key_G[None]
        for score_G, relevant_G in zip(score_cG, relevant_cG, strict=True):
            relevant_R = np.sort(score_G[relevant_G])[::-1]
            other_G = score_G[~relevant_G]
            # only what can stand above the last relevant item has to be sorted
            other_G = np.sort(other_G[other_G >= relevant_R[-1] - TIE])
            above_R = len(other_G) - np.searchsorted(other_G, relevant_R - TIE)
            yield above_R + np.arange(1, len(relevant_R) + 1)


def _chunks(query_QE: np.ndarray, gallery_GE: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of the queries with their scores (c, G), so that (Q, G) never exists as a whole."""
    size = max(1, CHUNK_SCORES // len(gallery_GE))
    for start in range(0, len(query_QE), size):
        rows = slice(start, start + size)
        yield rows, query_QE[rows] @ gallery_GE.T


def nearest(query_QE: np.ndarray, gallery_GE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and scores (Q, k) of the best gallery items, best first; fewer if it is smaller."""
    indices, scores = [], []
    for _, score_cG in _chunks(query_QE, gallery_GE):
        best_ck = np.argsort(-score_cG, axis=1, kind="stable")[:, :k]
        indices.append(best_ck)
        scores.append(np.take_along_axis(score_cG, best_ck, axis=1))
    return np.concatenate(indices), np.concatenate(scores)
