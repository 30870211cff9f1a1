"""Every direction in which a model generates, for the rows of a manifest.

generated = generate_directions(model, rows, seed=0, token_budget=16_384)
results = measure_generation(generated, rows, judges)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from trimodal.batch import Modality
from trimodal.data import Row
from trimodal.evaluation.embedding import SINGLES, TOKEN_BUDGET, languages_of
from trimodal.evaluation.generating import generate_rows
from trimodal.evaluation.generation import Generated
from trimodal.progress import Progress

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel


@dataclass(frozen=True)
class Direction:
    """What is generated from what."""

    source: str
    target: Literal["image", "text", "speech", "answer"]
    lang: str | None = None
    """The language of what is generated, where the manifest has it in several or it has one."""
    source_lang: str | None = None
    """The language of the observed text, where it matters."""

    @property
    def name(self) -> str:
        """`text[en]->text[zh]`."""
        source = f"{self.source}[{self.source_lang}]" if self.source_lang else self.source
        return f"{source}->{self.target}" + (f"[{self.lang}]" if self.lang else "")


def directions_of(
    rows: Sequence[Row], targets: Sequence[str], *, answers: bool | None = None
) -> list[Direction]:
    """The directions that the rows can be asked for and scored in.

    Args:
        rows: of the manifest.
        targets: what the model generates, of `image`, `text` and `speech`.
        answers: whether it was trained on questions, if that is known.
    """
    languages = languages_of(rows)
    spoken: list[str | None] = [*sorted({r.speech_lang for r in rows if r.speech_lang})]
    found: list[Direction] = []
    for source in SINGLES:
        if not any(source in row.data_names for row in rows):
            continue
        if "image" in targets:
            found.append(Direction(source, "image"))
        if "text" in targets and source != "text":
            found += [Direction(source, "text", lang) for lang in languages]
        elif "text" in targets:
            pairs = [(a, b) for a in languages for b in languages if a != b]
            found += [Direction("text", "text", b, a) for a, b in pairs]
        if "speech" in targets:
            found += [Direction(source, "speech", lang) for lang in spoken or [None]]
    if "text" in targets and answers is not False and any(row.answer for row in rows):
        found += [Direction(f"image+{question}", "answer") for question in ("text", "speech")]
    return found


def generate_directions(
    model: "TrimodalModel",
    rows: Sequence[Row],
    *,
    seed: int = 0,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> Iterator[Generated]:
    """The outputs of each direction that has rows; greedy texts, else the default decoding.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
    """
    from trimodal.models.generation import Request, default_decoding

    config = model.config
    for direction in directions_of(rows, config.generates, answers=config.answers):
        chosen = [row for row in rows if fits(row, direction)]
        if not chosen:
            continue
        answer = direction.target == "answer"
        to = Modality.TEXT if answer else Modality.of(direction.target)
        request = Request(to=to, lang=direction.lang, answer=answer)
        outputs: list[Any] = []
        with Progress(len(chosen), f"generated {direction.name},", shown=progress) as bar:
            for _, made in generate_rows(
                model,
                chosen,
                [Modality.of(name) for name in direction.source.split("+")],
                request,
                default_decoding(to),
                seed=seed,
                source_lang=direction.source_lang,
                token_budget=token_budget,
            ):
                outputs += [one.output for one in made]
                bar.advance(len(made))
        if to is Modality.SPEECH:
            outputs = [(samples, model.sample_rate) for samples in outputs]
        source = direction.name.partition("->")[0]
        yield Generated(cast(Any, source), direction.target, chosen, outputs, direction.lang)


def fits(row: Row, direction: Direction) -> bool:
    """Whether a row has the sources, and what the output is scored against."""
    sources = set(direction.source.split("+"))
    if direction.target == "answer":
        question = row.question if "text" in sources else row.question_speech
        return bool(question and row.answer and row.image)
    if not sources <= set(row.data_names):
        return False
    if direction.source_lang is not None and direction.source_lang not in row.texts:
        return False
    return direction.target != "text" or direction.lang in row.texts
