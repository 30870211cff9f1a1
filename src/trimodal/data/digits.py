"""Handwritten digits, their names in two languages, and the names spoken: the demo's corpus.

build(Digits(seed=0), "data/digits")
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trimodal.data.corpus import Item
from trimodal.data.espeak import SPEAKERS, Utterance, Voice
from trimodal.errors import ConfigError, DataError
from trimodal.streams import generator

NAMES = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "zh": ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九"),
}
PHRASES = {
    "en": ("{}", "the digit {}", "a handwritten {}"),
    "zh": ("{}", "数字{}", "手写的{}"),
}
SHARES = (0.8, 0.1, 0.1)
"""Of the phrases in train; the bare name leads, so that it is what a picture most likely says."""
NUM_TEST, NUM_VAL = 300, 200
README = """# Digits: handwritten, spoken and named

Built by `trimodal data build digits` with seed {seed}; the same command writes the same bytes.

- `train.jsonl` {train} rows, `val.jsonl` {val}, `test.jsonl` {test}: a scan (`image`), the name of
  its digit in English and Chinese (`text`, `text_zh`), the name spoken in one of the two
  (`speech`, `speech_lang`), `label` and `group` the digit.
- `prompts.json`: by label and language, the texts that name it, the bare name first.

## Pictures
The 1,797 scans of 8 x 8 pixels and 17 grey levels of "Optical Recognition of Handwritten Digits"
(E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0)
that scikit-learn carries (BSD-3-Clause); the grey levels are stretched to 0 to 255.
The scans name no writers but come in their order, so the splits are contiguous blocks:
test is the last {num_test} scans, val the {num_val} before them, train the rest.
A train scan has {takes} rows, each with another speaker; val and test scans have one row and bare
names.

## Speech
Synthetic, mono FLAC at 22,050 Hz, by espeak-ng (GPL-3.0-or-later, which covers the engine and not
what it says): {speakers} speakers in train, {val_speakers} in val, {test_speakers} in test,
no speaker in two splits. Speakers differ in pitch, formants, tone, breath, rate and accent,
utterances in tempo, height and liveliness. Synthetic speech shows that the parts work together;
measure a model that is meant for people on recordings of people.
"""


@functools.cache
def scans() -> tuple[np.ndarray, np.ndarray]:
    """The pictures (1797, 8, 8) uint8 and their digits (1797,) int64.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "the digits need the package scikit-learn: pip install 'trimodal[demo]'"
        ) from None
    greys, digits = load_digits(return_X_y=True)
    return np.rint(np.reshape(greys, (-1, 8, 8)) * (255 / 16)).astype(np.uint8), np.asarray(digits)


@dataclass(frozen=True)
class Digits:
    """The recipe; see `README`."""

    name: ClassVar[str] = "digits"
    seed: int = 0
    speakers: int = SPEAKERS["train"]
    """Of train; the others have a fixed number."""
    takes: int = 3
    """Rows of each train scan."""
    limit: int | None = None
    """Most scans of each split."""

    def __post_init__(self) -> None:
        if not 1 <= self.takes <= self.speakers:
            raise ConfigError(
                f"{self.speakers} speakers are too few for {self.takes} takes of each scan"
            )
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"a limit of {self.limit} leaves no scans")

    def block(self, split: str) -> range:
        """Which scans a split has."""
        count = len(scans()[0])
        bounds = {
            "train": (0, count - NUM_TEST - NUM_VAL),
            "val": (count - NUM_TEST - NUM_VAL, count - NUM_TEST),
            "test": (count - NUM_TEST, count),
        }
        return range(*bounds[split])[: self.limit]

    def size(self, split: str) -> int:
        """Number of rows."""
        return len(self.block(split)) * (self.takes if split == "train" else 1)

    def item(self, split: str, index: int) -> Item:
        """Row `index`: the takes of a scan lie side by side."""
        place, take = divmod(index, self.takes) if split == "train" else (index, 0)
        scan = self.block(split)[place]
        digit = int(scans()[1][scan])
        draws = generator(self.seed, "digits", split, scan, take)
        phrases = {
            lang: texts[draws.choice(len(texts), p=SHARES) if split == "train" else 0]
            for lang, texts in PHRASES.items()
        }
        fields = {
            "id": f"{split}-{scan:04d}-{take}",
            "text": phrases["en"].format(NAMES["en"][digit]),
            "lang": "en",
            "text_zh": phrases["zh"].format(NAMES["zh"][digit]),
            "label": str(digit),
            "group": str(digit),
        }
        pixels = scans()[0][scan] if take == 0 else None
        lang = ("en", "zh")[(place + take) % 2]
        utterance = Utterance(
            text=NAMES[lang][digit],
            lang=lang,
            voice=self._voice(split, scan, take),
            tempo=float(draws.uniform(0.85, 1.2)),
            pitch=int(draws.integers(35, 66)),
            liveliness=int(draws.integers(25, 76)),
        )
        return Item(fields, f"{split}-{scan:04d}", pixels, utterance)

    def _voice(self, split: str, scan: int, take: int) -> Voice:
        count = self.speakers if split == "train" else SPEAKERS[split]
        order = generator(self.seed, "digits-speakers", split, scan).permutation(count)
        return Voice.draw(self.seed, split, int(order[take]))

    def prompts(self) -> dict[str, dict[str, list[str]]]:
        """By digit and language, its name and the phrases that train uses."""
        return {
            str(digit): {
                lang: [phrase.format(NAMES[lang][digit]) for phrase in phrases]
                for lang, phrases in PHRASES.items()
            }
            for digit in range(10)
        }

    def readme(self) -> str:
        """See `Recipe.readme`."""
        return README.format(
            seed=self.seed,
            takes=self.takes,
            speakers=self.speakers,
            val_speakers=SPEAKERS["val"],
            test_speakers=SPEAKERS["test"],
            num_test=NUM_TEST,
            num_val=NUM_VAL,
            **{split: self.size(split) for split in ("train", "val", "test")},
        )
