"""What a model makes: a few conditions of each direction with its outputs, ready for a page.

ways = make_examples(model, rows, seed=0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimodal.batch import Modality
from trimodal.data import Row
from trimodal.data.row import language_of
from trimodal.evaluation.directions import Direction, directions_of, fits
from trimodal.evaluation.embedding import SINGLES, TOKEN_BUDGET, processor_of
from trimodal.evaluation.examples import Album, Card, choose
from trimodal.evaluation.generating import generate_rows
from trimodal.evaluation.generation import references
from trimodal.evaluation.words import matches
from trimodal.progress import Progress

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel


@dataclass(frozen=True)
class Made:
    """One output beside what it was made from."""

    condition: list[Card]
    output: Card
    lang: str | None
    """The language that was asked for."""
    right: bool | None
    """Whether a text is one of those that are right; None of pictures and speech."""
    expected: str = ""
    """Of a text, one that is right."""


@dataclass(frozen=True)
class Way:
    """The examples from one modality to another, its languages taking turns."""

    source: str
    target: str
    examples: list[Made]

    @property
    def name(self) -> str:
        """`image->text`."""
        return f"{self.source}->{self.target}"

    @property
    def right(self) -> int | None:
        """How many outputs are right; None where nobody says."""
        marks = [made.right for made in self.examples if made.right is not None]
        return sum(marks) if marks else None


def make_examples(
    model: "TrimodalModel",
    rows: Sequence[Row],
    *,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> list[Way]:
    """A few outputs of every way in which the model generates and the rows have references.

    Which rows is a pure function of the manifest, so nothing is picked for its looks. An output is
    the one that `generate_directions` gives for its row with the same seed.

    Args:
        model: with its processor.
        rows: of the manifest.
        seed: of the draws.
        token_budget: tokens held at once.
        progress: say on stderr how far it is.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
    """
    ways: dict[tuple[str, str], list[Direction]] = {}
    config = model.config
    for direction in directions_of(rows, config.generates, answers=config.answers):
        ways.setdefault((direction.source, direction.target), []).append(direction)
    chosen = {way: _conditions(rows, directions) for way, directions in ways.items()}
    album, found = _Shown(model, rows), []
    total = sum(len(conditions) for conditions in chosen.values())
    with Progress(total, "examples made,", shown=progress) as bar:
        for (source, target), conditions in chosen.items():
            if conditions:
                made = [
                    album.made(rows[i], direction, output)
                    for (i, direction), output in zip(
                        conditions,
                        _outputs(model, rows, conditions, seed, token_budget),
                        strict=True,
                    )
                ]
                found.append(Way(source, target, made))
            bar.advance(len(conditions))
    return found


def nine(ways: Sequence[Way]) -> list[tuple[str, list[Made | None]]]:
    """By source the first example of each of the three targets; None where nothing is made."""
    firsts = {(way.source, way.target): way.examples[0] for way in ways}
    found = [(source, [firsts.get((source, target)) for target in SINGLES]) for source in SINGLES]
    return found if any(made for _, cells in found for made in cells) else []


def _conditions(
    rows: Sequence[Row], directions: Sequence[Direction]
) -> list[tuple[int, Direction]]:
    """Places of rows, and in which of the directions each is used."""
    able = {
        i: fitting
        for i, row in enumerate(rows)
        if (fitting := [direction for direction in directions if fits(row, direction)])
    }
    chosen = choose(rows, able)
    return [(i, able[i][turn % len(able[i])]) for turn, i in enumerate(chosen)]


def _outputs(
    model: "TrimodalModel",
    rows: Sequence[Row],
    conditions: Sequence[tuple[int, Direction]],
    seed: int,
    token_budget: int,
) -> list[Any]:
    """The output of each condition, in their order."""
    from trimodal.models.generation import Request, default_decoding

    found: dict[int, Any] = {}
    for direction in dict.fromkeys(direction for _, direction in conditions):
        places = [i for i, asked in conditions if asked == direction]
        answer = direction.target == "answer"
        to = Modality.TEXT if answer else Modality.of(direction.target)
        for start, made in generate_rows(
            model,
            [rows[i] for i in places],
            [Modality.of(name) for name in direction.source.split("+")],
            Request(to=to, lang=direction.lang, answer=answer),
            default_decoding(to),
            seed=seed,
            source_lang=direction.source_lang,
            token_budget=token_budget,
        ):
            found |= zip(places[start:], (one.output for one in made), strict=False)
    return [found[i] for i, _ in conditions]


class _Shown:
    """Conditions and outputs as cards, and which texts are right."""

    def __init__(self, model: "TrimodalModel", rows: Sequence[Row]) -> None:
        self.album = Album(processor_of(model))
        self._groups: dict[str, list[Row]] = {}
        for row in rows:
            self._groups.setdefault(row.key("group"), []).append(row)

    def made(self, row: Row, direction: Direction, output: Any) -> Made:
        condition = [self._condition(row, name, direction) for name in direction.source.split("+")]
        kind = "text" if direction.target == "answer" else direction.target
        lang = direction.lang
        if kind != "text":
            return Made(condition, self.album.made(row, kind, output), lang, None)
        if direction.target == "answer":
            right = [row.answer or ""]
            written = language_of(output)
        else:
            right = references(row, lang, direction.source, self._groups[row.key("group")])
            written = lang
        card = self.album.made(row, "text", output, written)
        return Made(condition, card, lang, bool(matches([output], [right])[0]), right[0])

    def _condition(self, row: Row, name: str, direction: Direction) -> Card:
        if direction.target == "answer" and name != "image":
            return self.album.question(row, name)
        if name != "text":
            return self.album.card(row, name)
        lang = direction.source_lang or next(iter(row.texts))
        return Card("text", row.id, row.texts[lang], lang)
