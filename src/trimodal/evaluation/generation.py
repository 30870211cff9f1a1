"""Scores of what a model generates, in any direction, against the rows that it was asked with.

results = measure_generation([Generated("image", "text", rows, texts, lang="en")], rows, judges)
print(format_generation(results))

Nothing here knows the model: outputs come in as texts, pictures and waveforms.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimodal.config import SpeechInputConfig
from trimodal.data import Row
from trimodal.data.row import language_of
from trimodal.errors import DataError
from trimodal.evaluation.captions import cider
from trimodal.evaluation.copies import Copies, file_of, path_of
from trimodal.evaluation.frechet import frechet_distance
from trimodal.evaluation.judges import (
    Input,
    Judges,
    judge_files,
)
from trimodal.evaluation.subgroups import split_scores
from trimodal.evaluation.words import error_rate, exact, matches, normalise
from trimodal.processors import SpeechProcessor
from trimodal.streams import generator

SWAPS = 10
"""Exchanges tried for each row when conditions are shuffled."""
ERRORS = frozenset({"wer", "cer"})
"""Scores of which less is better."""


@dataclass(frozen=True)
class Generated:
    """What a model made of some rows in one direction."""

    source: str
    """What it was given, of `image`, `text` and `speech`; several are joined by `+`."""
    target: Literal["image", "text", "speech", "answer"]
    """An answer is a text, to the question of the row."""
    rows: Sequence[Row]
    """N, the conditions."""
    outputs: Sequence[Any]
    """N texts, (H, W, 3) uint8 pictures or (samples, rate) pairs."""
    lang: str | None = None
    """The language that was asked for; without one, that of each row's own text."""

    @property
    def name(self) -> str:
        """`image->text[en]`."""
        return f"{self.source}->{self.target}" + (f"[{self.lang}]" if self.lang else "")


def measure_generation(
    generated: Sequence[Generated],
    rows: Sequence[Row],
    judges: Judges | None,
    *,
    by: Sequence[str] = (),
    seed: int = 0,
    speech: SpeechProcessor | None = None,
) -> dict[str, Any]:
    """Score every direction.

    Returns a tree that JSON can hold: `rows`, `seed` and `by`; `judges`, by modality how right they
    are about the real media, and what they were `trained_on`; and `directions`, by name
    `image->text[en]`:

    - `samples`; of texts `exact`, `wer`, `cer` and `cider`, of answers `exact`, of pictures and
      speech `accuracy` (the judge sees the row's label; `unknown_label` rows have none that it
      knows) and `frechet` (between the judge's features of the outputs and of all real media).
    - `copies`, the share of the outputs that are the input again, where there is such an input, and
      `copies_of_others`, how often another real medium of the label would pass for that.
    - `shuffled`, by score: the same outputs against the conditions of other rows, of another label
      or text where there is one; `gain`, by how much the score is better than that; `chance`: a
      label at random, or the text of a random row.
    - `by`, if it was asked for, what `split_scores` finds.

    Args:
        generated: the outputs; every direction once.
        rows: the manifest that the conditions come from. Its rows of one group lend each other
            their texts as references, and its media are what generated ones are compared with.
        judges: None if there are none, then pictures and speech are only looked through for copies.
        by: keys of the rows by whose values the right ones are also counted.
        seed: of the shuffling.
        speech: what the model hears by, so that whatever it was given can be looked through for
            copies; else what the judges hear by, or the default.

    Raises:
        DataError: a row lacks what its output is scored against, or a medium cannot be read.
        ValueError: a direction occurs twice, or has not one output a row.
    """
    if speech is None:
        speech = judges.speech if judges else SpeechProcessor(SpeechInputConfig())
    measure = _Measure(rows, judges, Copies(rows, speech, seed), seed)
    directions: dict[str, dict[str, Any]] = {}
    for one in generated:
        if one.name in directions or len(one.rows) != len(one.outputs):
            raise ValueError(f"{one.name}: {len(one.outputs)} outputs of {len(one.rows)} rows")
        written = one.target in ("text", "answer")
        scores, right_N = measure.text(one) if written else measure.media(one)
        if by and right_N is not None:
            scores["by"] = split_scores(one.rows, right_N, by)
        directions[one.name] = {"samples": len(one.rows), **scores}
    return {
        "rows": len(rows),
        "seed": seed,
        "by": list(by),
        "judges": measure.ceilings(),
        "directions": directions,
    }


def derange(keys: Sequence[str], seed: int) -> np.ndarray | None:
    """For each of N places another one (N,), of another key wherever that can be had.

    A permutation; None if there is no other place.
    """
    if len(keys) < 2:
        return None
    rng = generator("derangement", seed)
    _, id_N, count = np.unique(np.array(keys), return_inverse=True, return_counts=True)
    mixed_N = rng.permutation(len(keys))
    sorted_N = mixed_N[np.argsort(id_N[mixed_N], kind="stable")]
    # a step as long as the longest run of equal keys leaves every run
    longest = int(count.max())
    other_N = np.empty(len(keys), dtype=np.int64)
    other_N[sorted_N] = np.roll(sorted_N, -longest if longest < len(keys) else -1)
    # so far a key always meets the same one or two others
    for i, j in rng.integers(len(keys), size=(SWAPS * len(keys), 2)):
        a, b = other_N[i], other_N[j]
        if id_N[i] != id_N[b] and id_N[j] != id_N[a]:
            other_N[i], other_N[j] = b, a
    return other_N


def references(row: Row, lang: str | None, source: str, rows: Sequence[Row]) -> list[str]:
    """The texts that are right for a row: its own, its references, those of its group in `rows`.

    Speech may also be written down as it was said, by a `transcript` in the row's metadata.

    Raises:
        DataError: the row has no text in that language.
    """
    lang = lang or next(iter(row.texts), None)
    if lang is None or lang not in row.texts:
        raise DataError(f"{row.where}: has no text{f' in {lang}' if lang else ''} to compare with")
    found = [row.texts[lang], *row.references.get(lang, ())]
    found += [other.texts[lang] for other in rows if lang in other.texts]
    spoken = row.metadata.get("transcript")
    if source == "speech" and isinstance(spoken, str) and language_of(spoken) == lang:
        found.append(spoken)
    return list(dict.fromkeys(found))


class _Measure:
    """What the directions share: groups of rows, the judges' verdicts on real media."""

    def __init__(
        self, rows: Sequence[Row], judges: Judges | None, copies: Copies, seed: int
    ) -> None:
        self.rows, self.judges, self.copies, self.seed = rows, judges, copies, seed
        self._groups: dict[str, list[Row]] = {}
        for row in rows:
            self._groups.setdefault(row.key("group"), []).append(row)
        self._real: dict[str, tuple[list[Row], np.ndarray, np.ndarray]] = {}

    def text(self, one: Generated) -> tuple[dict[str, Any], np.ndarray]:
        """The scores of texts, and which of them are exactly right (N,)."""
        if one.target == "answer":
            right = [[_answer(row)] for row in one.rows]
            keys = [normalise(texts[0]) for texts in right]
        else:
            right = [
                references(row, one.lang, one.source, self._groups.get(row.key("group"), ()))
                for row in one.rows
            ]
            pairs = zip(one.rows, right, strict=True)
            keys = [row.label or row.group or normalise(texts[0]) for row, texts in pairs]
        texts = list(one.outputs)
        judge = _accuracy_of_answers if one.target == "answer" else _text_scores
        other_N = derange(keys, self.seed)
        shuffled = None if other_N is None else judge(texts, [right[i] for i in other_N])
        scores = _compared(judge(texts, right), shuffled, {"exact": _chance(right)})
        return scores, matches(texts, right).astype(np.float64)

    def media(self, one: Generated) -> tuple[dict[str, Any], np.ndarray | None]:
        """The scores of pictures or utterances, and which the judge finds right (N,)."""
        name: Input = "image" if one.target == "image" else "speech"
        scores: dict[str, Any] = {}
        if name in one.source.split("+"):
            scores["copies"] = self.copies.share(name, one.rows, one.outputs)
            if (rate := self.copies.base_rate(name, one.rows, one.lang)) is not None:
                scores["copies_of_others"] = rate
        if self.judges is None or name not in self.judges.config.inputs or not one.outputs:
            return scores, None
        if name == "image":
            probability_NC, features_ND = self.judges.judge_images(one.outputs)
        else:
            probability_NC, features_ND = self.judges.judge_speech(one.outputs)
        real_ND = self._real_features(self.judges, name, one.lang)
        if len(real_ND):
            scores["frechet"] = frechet_distance(features_ND, real_ND)
        labels = self.judges.labels
        right_N = _judged(labels, one.rows, probability_NC)
        return {**scores, **self._labels(labels, one.rows, probability_NC)}, right_N

    def _labels(
        self, classes: Sequence[str], rows: Sequence[Row], probability_NC: np.ndarray
    ) -> dict[str, Any]:
        """Whether the judge sees in an output the label of its row."""
        known = [i for i, row in enumerate(rows) if row.label in classes]
        unknown = {"unknown_label": len(rows) - len(known)}
        if not known:
            return unknown
        chosen = [rows[i] for i in known]
        scores = {"accuracy": float(_judged(classes, chosen, probability_NC[known]).mean())}
        shuffled, other_N = None, derange([str(row.label) for row in chosen], self.seed)
        if other_N is not None:
            others = [chosen[i] for i in other_N]
            right_N = _judged(classes, others, probability_NC[known])
            shuffled = {"accuracy": float(right_N.mean())}
        return {**_compared(scores, shuffled, {"accuracy": 1 / len(classes)}), **unknown}

    def ceilings(self) -> dict[str, Any] | None:
        """How often the judges are right about the real media that were needed."""
        if self.judges is None:
            return None
        found: dict[str, Any] = {"trained_on": self.judges.config.manifest}
        for name, (rows, probability_NC, _) in self._real.items():
            found[name] = {
                "samples": len(rows),
                **self._labels(self.judges.labels, rows, probability_NC),
            }
            for key in ("shuffled", "gain"):
                found[name].pop(key, None)
        return found

    def _real_features(self, judges: Judges, name: Input, lang: str | None) -> np.ndarray:
        """Features of the manifest's media, each file once; of speech, in the language."""
        if name not in self._real:
            firsts = {path_of(row, name): row for row in reversed(self.rows) if path_of(row, name)}
            chosen = list(firsts.values())
            files = [file_of(row, name) for row in chosen]
            self._real[name] = (chosen, *judge_files(judges, name, files))
        rows, _, features_ND = self._real[name]
        fits = [lang is None or name == "image" or r.speech_lang in (None, lang) for r in rows]
        return features_ND[np.array(fits, dtype=bool)]


def _judged(classes: Sequence[str], rows: Sequence[Row], probability_NC: np.ndarray) -> np.ndarray:
    """Whether the judge decides for the label of each row (N,); NaN where it does not know it."""
    decided = [classes[i] for i in probability_NC.argmax(axis=1)]
    return np.array(
        [
            float(row.label == name) if row.label in classes else np.nan
            for row, name in zip(rows, decided, strict=True)
        ]
    )


def _answer(row: Row) -> str:
    if row.answer is None:
        raise DataError(f"{row.where}: has no answer to compare with")
    return row.answer


def _accuracy_of_answers(texts: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    return {"exact": exact(texts, right)}


def _text_scores(texts: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    return {
        "exact": exact(texts, right),
        "wer": error_rate(texts, right, "words"),
        "cer": error_rate(texts, right, "characters"),
        "cider": float(cider(texts, right).mean()) if texts else 0.0,
    }


def _chance(right: Sequence[Sequence[str]]) -> float:
    """How often the own text of a random row is right."""
    drawn = Counter(normalise(texts[0]) for texts in right)
    hits = sum(drawn[text] for texts in right for text in {normalise(t) for t in texts})
    return hits / max(1, len(right)) ** 2


def _compared(
    scores: Mapping[str, float],
    shuffled: Mapping[str, float] | None,
    chance: Mapping[str, float],
) -> dict[str, Any]:
    """Scores with what they are worth; nothing is shuffled where there is one row."""
    tree: dict[str, Any] = {**scores, "chance": dict(chance)}
    if shuffled is not None:
        sign = {key: -1 if key in ERRORS else 1 for key in scores}
        gain = {key: sign[key] * (scores[key] - shuffled[key]) for key in scores}
        tree |= {"shuffled": dict(shuffled), "gain": gain}
    return tree
