"""Compose strings of digits from a manifest of single ones, for a harder, instance-level task.

    python benchmarks/compose_strings.py data/digits/train.jsonl OUT --samples 16000

A string is three or more pictures side by side, as many utterances of one speaker with short
pauses, and their names in both languages. Every picture and utterance comes from the manifest, so
strings of its train part hold nothing of its other parts. Writes OUT/train.jsonl, OUT/image and
OUT/speech; the same arguments write the same files.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from tqdm import tqdm

from trimodal.data import Row, read_manifest
from trimodal.errors import DataError
from trimodal.streams import generator

ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CHINESE = "零一二三四五六七八九"


class Composer:
    """Draws strings from the single digits of a manifest."""

    def __init__(self, rows: list[Row]) -> None:
        self.pictures: dict[str, list[Path]] = defaultdict(list)
        self.voices: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if row.label not in tuple("0123456789"):
                raise DataError(f"{row.where}: label must be a digit, got {row.label!r}")
            if isinstance(row.image, Path):
                self.pictures[row.label].append(row.image)
            if isinstance(row.speech, Path) and row.speech_lang in (None, "en"):
                self.voices[row.speaker or ""][row.label].append(row.speech)
        self.speakers = sorted(s for s, digits in self.voices.items() if len(digits) == 10)
        if not self.speakers or len(self.pictures) < 10:
            raise DataError("the manifest lacks pictures of some digit, or a speaker of all ten")

    def compose(
        self, index: int, seed: int, longest: int
    ) -> tuple[str, np.ndarray, np.ndarray, int, str]:
        """Digits, picture (H, W) uint8, waveform (S,), sample rate and speaker of one string."""
        rng = generator("string", seed, index)
        digits = "".join(str(d) for d in rng.integers(0, 10, rng.integers(3, longest + 1)))
        speaker = self.speakers[rng.integers(len(self.speakers))]
        pictures, waves, rate = [], [], 0
        for digit in digits:
            options = self.pictures[digit]
            with Image.open(options[rng.integers(len(options))]) as picture:
                pictures.append(np.asarray(picture.convert("L")))
            takes = self.voices[speaker][digit]
            wave, rate = soundfile.read(takes[rng.integers(len(takes))], dtype="float32")
            waves += [np.zeros(int(rng.uniform(0.05, 0.25) * rate), np.float32), wave]
        return digits, np.concatenate(pictures, 1), np.concatenate(waves[1:]), rate, speaker


def main() -> None:
    """Compose as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=16_000)
    parser.add_argument("--longest", type=int, default=3, help="digits of the longest string")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    composer = Composer(read_manifest(options.manifest))
    for folder in ("image", "speech"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in tqdm(range(options.samples), disable=None):
        digits, picture, wave, rate, speaker = composer.compose(i, options.seed, options.longest)
        name = f"string-{i:06d}"
        Image.fromarray(picture).save(options.out / "image" / f"{name}.png")
        soundfile.write(options.out / "speech" / f"{name}.flac", np.clip(wave, -1, 1), rate)
        row = {
            "id": name,
            "image": f"image/{name}.png",
            "speech": f"speech/{name}.flac",
            "text": " ".join(ENGLISH[int(d)] for d in digits),
            "lang": "en",
            "text_zh": "".join(CHINESE[int(d)] for d in digits),
            "label": digits,
            "group": digits,
            "speaker": speaker,
            "speech_lang": "en",
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (options.out / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{options.samples} strings by {len(composer.speakers)} speakers in {options.out}")


if __name__ == "__main__":
    main()
