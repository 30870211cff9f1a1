"""CIDEr-D, agreement of captions with what several people wrote (Vedantam et al., 2015).

cider(["a red square"], [["a red square", "the square is red"]]).mean()
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from trimodal.evaluation.words import References, several, tokens

LONGEST = 4
SIGMA = 6.0
"""Standard deviation, in words, of the penalty on a difference of length."""
Ngram = tuple[str, ...]


def cider(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """The score (N,) of each caption, from 0 to 10.

    Words are those of `trimodal.evaluation.words`. An n-gram weighs by how few of the N sets of
    references hold it, so one that is in all of them weighs nothing, and a single set cannot be
    scored. The four lengths of n-grams count alike: a caption of one word reaches at most 2.5.

    Args:
        hypotheses: N.
        references: N texts or lists of texts.
    """
    sets = [[_ngrams(text) for text in several(given)] for given in references]
    weights = _weights(sets)
    return np.array(
        [
            _score(_ngrams(hypothesis), given, weights)
            for hypothesis, given in zip(hypotheses, sets, strict=True)
        ],
        dtype=np.float64,
    )


def _ngrams(text: str) -> list[Counter[Ngram]]:
    """How often each n-gram occurs, for n = 1 to `LONGEST`."""
    words = tokens(text)
    return [
        Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        for n in range(1, LONGEST + 1)
    ]


def _weights(sets: Sequence[Sequence[Sequence[Counter[Ngram]]]]) -> "_Weights":
    documents: Counter[Ngram] = Counter()
    for texts in sets:
        documents.update({ngram for text in texts for counts in text for ngram in counts})
    return _Weights(documents, len(sets))


class _Weights:
    """Inverse document frequencies; an n-gram of no reference weighs as one of a single set."""

    def __init__(self, documents: Counter[Ngram], sets: int) -> None:
        self._documents, self._sets = documents, sets

    def __call__(self, counts: Counter[Ngram]) -> dict[Ngram, float]:
        """The vector of a text: occurrences times weight."""
        return {
            ngram: count * math.log(self._sets / max(1, self._documents[ngram]))
            for ngram, count in counts.items()
        }


def _score(
    hypothesis: Sequence[Counter[Ngram]],
    references: Sequence[Sequence[Counter[Ngram]]],
    weights: _Weights,
) -> float:
    """Mean over the references and over n of ten times the clipped cosine."""
    total = 0.0
    for reference in references:
        apart = hypothesis[0].total() - reference[0].total()
        penalty = math.exp(-(apart**2) / (2 * SIGMA**2))
        for ours, theirs in zip(hypothesis, reference, strict=True):
            total += penalty * _cosine(weights(ours), weights(theirs))
    return 10 * total / (LONGEST * len(references))


def _cosine(ours: dict[Ngram, float], theirs: dict[Ngram, float]) -> float:
    """Clipped, so that saying a thing more often than the reference does not pay."""
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    if norms == 0:
        return 0.0
    return sum(min(ours[n], theirs[n]) * theirs[n] for n in ours.keys() & theirs.keys()) / norms
