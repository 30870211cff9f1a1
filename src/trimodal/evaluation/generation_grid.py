"""Results of `measure_generation` in the shapes in which a page shows them.

rows = grid(results["generation"]["directions"])
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimodal.evaluation.embedding import SINGLES
from trimodal.evaluation.table import percent

COLUMNS = (
    *("shuffled", "by chance", "gain", "WER", "CER"),
    *("CIDEr", "Fréchet", "copies", "others alike", "samples"),
)


@dataclass(frozen=True)
class Cell:
    """How right a direction is, as the mean over its languages."""

    score: float | None
    """Exact matches of texts, what the judge finds right of the rest; None if nobody judged."""
    gain: float | None
    """Over the same outputs against the conditions of other rows."""
    languages: int


@dataclass(frozen=True)
class Table:
    """Every direction, without the columns in which nothing stands."""

    columns: list[str]
    lines: list[tuple[str, float | None, list[str]]]
    """Direction, how right it is, and its cells."""


def grid(directions: Mapping[str, Any]) -> list[tuple[str, list[Cell | None]]]:
    """By source the cells of the three targets; None where nothing was generated."""
    return [
        (source, [_cell(directions, source, target) for target in SINGLES]) for source in SINGLES
    ]


def answers(directions: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """The directions that answer questions."""
    sources = dict.fromkeys(name.split("->")[0] for name in directions if name.endswith("->answer"))
    cells = {source: _cell(directions, source, "answer") for source in sources}
    return [(f"{source}->answer", cell) for source, cell in cells.items() if cell is not None]


def table(directions: Mapping[str, Any]) -> Table:
    """A line a direction; shares and error rates in percent."""
    lines = [(name, _right(found, found), _numbers(found)) for name, found in directions.items()]
    filled = [i for i in range(len(COLUMNS)) if any(cells[i] for _, _, cells in lines)]
    return Table(
        [COLUMNS[i] for i in filled],
        [(name, right, [cells[i] for i in filled]) for name, right, cells in lines],
    )


def _cell(directions: Mapping[str, Any], source: str, target: str) -> Cell | None:
    chosen = [found for name, found in directions.items() if _ends(name) == (source, target)]
    if not chosen:
        return None
    scores = [_right(found, found) for found in chosen]
    gains = [_right(found, found.get("gain", {})) for found in chosen]
    return Cell(_mean(scores), _mean(gains), len(chosen))


def _ends(name: str) -> tuple[str, str]:
    """`text[en]->speech[zh]` goes from text to speech."""
    source, _, target = name.partition("->")
    return source.partition("[")[0], target.partition("[")[0]


def _right(found: Mapping[str, Any], scores: Mapping[str, float]) -> float | None:
    return scores.get("exact" if "exact" in found else "accuracy")


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _numbers(found: Mapping[str, Any]) -> list[str]:
    compared = [_right(found, found.get(key, {})) for key in ("shuffled", "chance", "gain")]
    unknown = found.get("unknown_label")
    shares = map(percent, [*compared, found.get("wer"), found.get("cer")])
    return [
        *(share.replace("-", "\N{MINUS SIGN}") for share in shares),
        *(f"{found[key]:.2f}" if key in found else "" for key in ("cider", "frechet")),
        percent(found.get("copies")),
        percent(found.get("copies_of_others")),
        f"{found['samples']} ({unknown} not judged)" if unknown else str(found["samples"]),
    ]
