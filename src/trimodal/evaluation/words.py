"""How far texts lie from what they should be: exact matches, word and character error rates.

error_rate(["a red squares"], ["a red square"], "words")  # 1/3

Texts are compared in one normal form. Compatibility forms (full-width letters and digits) are
folded (NFKC), so is case; apostrophes vanish, any other punctuation, of both scripts, parts words;
runs of white space become one space, and none stands beside an ideograph. A word is what spaces
part, and each ideograph is a word of its own: Chinese does not mark words, so for Chinese the
error rate of characters is the one to quote.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from trimodal.data.row import IDEOGRAPH

Unit = Literal["words", "characters"]
References = Sequence[str | Sequence[str]]
"""N texts, or N lists of texts each of which is right."""
APOSTROPHES = "'\u2018\u2019\u02bc\uff07"
AROUND_IDEOGRAPH = re.compile(f" ?({IDEOGRAPH.pattern}) ?")


def normalise(text: str) -> str:
    """The normal form in which texts are compared; see the top of this file."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (
        "" if c in APOSTROPHES else " " if unicodedata.category(c).startswith("P") else c
        for c in folded
    )
    return AROUND_IDEOGRAPH.sub(r"\1", " ".join("".join(kept).split()))


def tokens(text: str, unit: Unit = "words") -> list[str]:
    """The words or the characters of a text's normal form."""
    normal = normalise(text)
    if unit == "characters":
        return list(normal)
    return IDEOGRAPH.sub(lambda found: f" {found[0]} ", normal).split()


def several(reference: str | Sequence[str]) -> list[str]:
    """The texts of one reference, each once, in their order."""
    return [reference] if isinstance(reference, str) else list(dict.fromkeys(reference))


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Fewest tokens to replace, insert or delete (Levenshtein, 1966)."""
    ids: dict[str, int] = {}
    hypothesis_J, reference_I = (
        np.array([ids.setdefault(token, len(ids)) for token in side], dtype=np.int64)
        for side in (hypothesis, reference)
    )
    step_J = np.arange(len(hypothesis_J) + 1)
    distance_J = step_J
    for row, token in enumerate(reference_I, start=1):
        replaced_J = distance_J[:-1] + (hypothesis_J != token)
        best_J = np.concatenate([[row], np.minimum(distance_J[1:] + 1, replaced_J)])
        # an insertion costs 1 a token, so the best one is a running minimum
        distance_J = np.minimum.accumulate(best_J - step_J) + step_J
    return int(distance_J[-1])


def error_rate(hypotheses: Sequence[str], references: References, unit: Unit = "words") -> float:
    """Edits over all texts divided by the length of all references, so it may exceed 1.

    Args:
        hypotheses: N.
        references: N; of several texts a hypothesis is held against the one for which it needs
            the fewest edits a token, the first of equals.
        unit: `words` for WER, `characters` for CER; a space is a character.
    """
    edits, length = 0, 0
    for hypothesis, given in zip(hypotheses, references, strict=True):
        ours = tokens(hypothesis, unit)
        sides = [tokens(text, unit) for text in several(given)]
        found = [(edit_distance(ours, theirs), len(theirs)) for theirs in sides]
        best = min(found, key=lambda pair: pair[0] / max(1, pair[1]))
        edits, length = edits + best[0], length + best[1]
    return edits / max(1, length)


def matches(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """Which hypotheses (N,) equal any of their references after normalisation."""
    return np.array(
        [
            normalise(hypothesis) in {normalise(text) for text in several(given)}
            for hypothesis, given in zip(hypotheses, references, strict=True)
        ],
        dtype=bool,
    )


def exact(hypotheses: Sequence[str], references: References) -> float:
    """The share of `matches`; 0 of nothing."""
    return float(matches(hypotheses, references).mean()) if hypotheses else 0.0
