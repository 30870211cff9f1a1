"""Rendered scenes with captions, spoken captions, questions and answers, in two languages.

build(Scenes(seed=0, samples=4000), "data/scenes")
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from trimodal.config import LANGUAGES
from trimodal.data.captions import caption, one, pair_name, paraphrases, questions
from trimodal.data.corpus import Item
from trimodal.data.espeak import SPEAKERS, Utterance, Voice
from trimodal.data.shapes import HELD_OUT, RGB, SHAPES, SIDE, Figure, Scene
from trimodal.errors import ConfigError
from trimodal.streams import generator

KINDS = {"single": 0.25, "count": 0.2, "relation": 0.4, "trio": 0.15}
HELD_OUT_SHARE = 0.5  # of the figures of val and test
CELLS = (13.0, 32.0, 51.0)
PICTURED = {"en": "a picture of {}", "zh": "{}的图片"}
README = """# Scenes: rendered, captioned and spoken

Built by `trimodal data build scenes` with seed {seed}; the same command writes the same bytes.

- `train.jsonl` {train} rows, `val.jsonl` {val}, `test.jsonl` {test}: a picture of 64 x 64 pixels
  (`image`), its caption in English and Chinese (`text`, `text_zh`), the caption spoken in one of
  the two (`speech`, `speech_lang`), a `question` with its `answer` in one of them
  (`question_lang`), the question spoken by the same speaker (`question_speech`), `kind` (single,
  count, relation, trio), the number of `figures`, `references` by language, the captions that say
  the same as the row's, and `group`, an English caption, which scenes that show the same share.
  A scene of a single figure has it as its `label`. {spoken} of the rows of train are spoken.
- `prompts.json`: by label and language, the texts that name it, the bare name first.

## Splits
These pairs never occur in train:
{held_out}.
In val and test each figure is one of them with probability one half, and `held_out` says whether a
scene has any. Speakers: {train_speakers} in train, {val_speakers} in val, {test_speakers} in test,
no speaker in two splits.

## Licences
Pictures and texts are drawn and worded by the program. Speech is synthetic, mono FLAC at 22,050 Hz,
by espeak-ng (GPL-3.0-or-later, which covers the engine and not what it says); it is no stand-in
for people: measure a model that is meant for them on recordings of people.
"""


@dataclass(frozen=True)
class Scenes:
    """The recipe; see `README`."""

    name: ClassVar[str] = "scenes"
    seed: int = 0
    samples: int = 4000
    """Rows of train; val and test have a tenth of that each."""
    spoken: float = 1.0
    """Share of the rows of train that have speech; in val and test all have."""

    def __post_init__(self) -> None:
        if self.samples < 10:
            raise ConfigError(f"{self.samples} samples are too few, val and test have a tenth each")
        if not 0 <= self.spoken <= 1:
            raise ConfigError(f"the share of spoken rows must be in [0, 1], got {self.spoken:g}")

    def size(self, split: str) -> int:
        """Number of rows."""
        return self.samples if split == "train" else self.samples // 10

    def item(self, split: str, index: int) -> Item:
        """Row `index` of a split."""
        scene = compose(self.seed, split, index)
        draws = generator(self.seed, "scenes", split, index)
        language, asked = (str(lang) for lang in draws.choice(LANGUAGES, 2))
        pairs = questions(scene, asked)
        question, answer = pairs[draws.integers(len(pairs))]
        name = f"{split}-{index:05d}"
        fields = {
            "id": name,
            "text": caption(scene, "en"),
            "lang": "en",
            "text_zh": caption(scene, "zh"),
            "question": question,
            "answer": answer,
            "question_lang": asked,
            "group": min(paraphrases(scene, "en")),
            "kind": scene.kind,
            "figures": len(scene.figures),
            "held_out": any(figure.pair in HELD_OUT for figure in scene.figures),
        }
        if scene.kind == "single":
            fields["label"] = pair_name(scene.figures[0].pair, "en")
        others = {lang: paraphrases(scene, lang)[1:] for lang in LANGUAGES}
        if any(others.values()):
            fields["references"] = others
        if not self._speaks(split, index):
            return Item(fields, name, scene.draw())
        utterance = Utterance(
            text=caption(scene, language),
            lang=language,
            voice=Voice.draw(self.seed, split, int(draws.integers(SPEAKERS[split]))),
            tempo=float(draws.uniform(0.9, 1.15)),
            pitch=int(draws.integers(35, 66)),
            liveliness=int(draws.integers(25, 76)),
        )
        asking = replace(utterance, text=question, lang=asked)
        return Item(fields, name, scene.draw(), utterance, asking)

    def _speaks(self, split: str, index: int) -> bool:
        return split != "train" or generator(self.seed, "spoken", index).random() < self.spoken

    def prompts(self) -> dict[str, dict[str, list[str]]]:
        """By colour and shape, the held-out ones included, its name and phrases with it."""
        return {
            pair_name(pair, "en"): {
                lang: [
                    pair_name(pair, lang),
                    one(pair, lang),
                    PICTURED[lang].format(one(pair, lang)),
                ]
                for lang in LANGUAGES
            }
            for pair in ((colour, shape) for colour in RGB for shape in SHAPES)
        }

    def readme(self) -> str:
        """See `Recipe.readme`."""
        names = sorted(pair_name(pair, "en") for pair in HELD_OUT)
        return README.format(
            seed=self.seed,
            spoken=f"{100 * self.spoken:g} %",
            held_out=", ".join(names),
            **{split: self.size(split) for split in SPEAKERS},
            **{f"{split}_speakers": count for split, count in SPEAKERS.items()},
        )


def compose(seed: int, split: str, index: int) -> Scene:
    """The scene of one row, a pure function of the arguments."""
    draws = generator(seed, "scene", split, index)
    kind = draws.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "single":
        cell, [pair] = int(draws.integers(9)), _pairs(draws, split, 1)
        return Scene("single", (_in_cell(draws, pair, cell, 7, 11),), _ground(draws, [pair]), cell)
    if kind == "relation":
        pairs, relation = _pairs(draws, split, 2), int(draws.integers(4))
        figures = _facing(draws, pairs, relation)
        return Scene("relation", figures, _ground(draws, pairs), relation)
    if kind == "count":
        pairs = _pairs(draws, split, 1) * int(draws.integers(2, 5))
    else:
        pairs = sorted(_pairs(draws, split, 3))  # one order, so that one scene has one caption
    cells = draws.permutation(9)[: len(pairs)]
    figures = (_in_cell(draws, p, int(c), 6, 8) for p, c in zip(pairs, cells, strict=True))
    return Scene("count" if kind == "count" else "trio", tuple(figures), _ground(draws, pairs))


def _pairs(draws: np.random.Generator, split: str, count: int) -> list[tuple[str, str]]:
    rare = sorted(HELD_OUT)
    common = [(c, s) for c in RGB for s in SHAPES if (c, s) not in HELD_OUT]
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        held_out = split != "train" and draws.random() < HELD_OUT_SHARE
        among = rare if held_out else common
        pair = among[draws.integers(len(among))]
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def _in_cell(
    draws: np.random.Generator, pair: tuple[str, str], cell: int, least: float, most: float
) -> Figure:
    row, column = divmod(cell, 3)
    x, y = (CELLS[i] + draws.uniform(-1.5, 1.5) for i in (column, row))
    return Figure(*pair, x=x, y=y, radius=draws.uniform(least, most))


def _facing(
    draws: np.random.Generator, pairs: list[tuple[str, str]], relation: int
) -> tuple[Figure, ...]:
    """Two figures well apart along the axis of the relation and nearly level across it."""
    along = [draws.uniform(14, 18), draws.uniform(SIDE - 18, SIDE - 14)]
    across = draws.uniform(20, SIDE - 20) + draws.uniform(-5, 5, size=2)
    if relation % 2:  # below, right
        along.reverse()
    figures = []
    for pair, a, b in zip(pairs, along, across, strict=True):
        x, y = (b, a) if relation < 2 else (a, b)
        figures.append(Figure(*pair, x=float(x), y=float(y), radius=draws.uniform(7, 12)))
    return tuple(figures)


def _ground(draws: np.random.Generator, pairs: list[tuple[str, str]]) -> tuple[int, int, int]:
    """A colour that differs from those of all figures by at least 180 over the three channels."""
    used = np.array([RGB[colour] for colour, _ in pairs])
    while True:
        ground = draws.integers(60, 256, 3)
        if np.abs(used - ground).sum(axis=1).min() >= 180:
            return int(ground[0]), int(ground[1]), int(ground[2])
