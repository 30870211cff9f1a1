"""One table of tolerances and the smallest real inputs, for tests of trimodal and of what uses it.

assert_close(packed_TD, alone_TD, "packed-vs-alone-fp32")
"""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from trimodal.config import (
    ModelConfig,
    SpeechInputConfig,
    TransformerConfig,
    VisionInputConfig,
    VocabularyConfig,
)
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.processors.text import train_tokenizer
from trimodal.schema import to_dict
from trimodal.streams import generator
from trimodal.tokenizers import (
    SpeechTokenizer,
    SpeechTokenizerConfig,
    Tokenizers,
    VisionTokenizer,
    VisionTokenizerConfig,
)


class Tolerance(NamedTuple):
    """How far two numbers may lie apart: `absolute + relative * |expected|`."""

    relative: float
    absolute: float


TOLERANCES: dict[str, Tolerance] = {
    "exact": Tolerance(0.0, 0.0),
    "fp64": Tolerance(1e-10, 1e-12),
    "fp32": Tolerance(1e-5, 1e-6),
    "bf16": Tolerance(2e-2, 2e-2),
    "fp32-gradient": Tolerance(1e-4, 1e-5),
    "fixed-point": Tolerance(1e-9, 1e-8),  # sums of multiples of 2^-40
    "packed-vs-alone-fp32": Tolerance(1e-5, 1e-5),
    "micro-batches": Tolerance(1e-6, 1e-7),
    "cached-gradient": Tolerance(0.0, 1e-5),  # of the largest entry of a parameter, which is 1
    "two-processes-loss": Tolerance(1e-5, 0.0),
    "two-processes-gradient": Tolerance(0.0, 1e-5),
    "unit-norm": Tolerance(0.0, 1e-5),
    "served-vs-offline": Tolerance(1e-5, 1e-5),
    "served-speech": Tolerance(0.0, 2 / 32_768),  # two of the 16 bits' steps in which it is sent
}
"""By what is compared; a test that needs another value needs a line here and a reason in review."""


def assert_close(actual: Any, expected: Any, kind: str) -> None:
    """Fail unless shapes, places of NaN and values agree within `TOLERANCES[kind]`.

    Args:
        actual: a tensor, array, number or nested list of numbers.
        expected: likewise.
        kind: what is compared, a key of the table.
    """
    tolerance = TOLERANCES[kind]
    tensors = [torch.as_tensor(value).detach().cpu().double() for value in (actual, expected)]
    torch.testing.assert_close(
        *tensors,
        rtol=tolerance.relative,
        atol=tolerance.absolute,
        equal_nan=True,
        msg=lambda message: f"{kind}: {message}",
    )


def tiny_model_config(*, summaries: bool = True) -> ModelConfig:
    """Every part of the architecture at the smallest size that still has all of it."""
    return ModelConfig(
        vision=TransformerConfig(width=32, depth=1, num_heads=2),
        text=TransformerConfig(width=32, depth=1, num_heads=2),
        speech=TransformerConfig(width=32, depth=1, num_heads=2),
        trunk=TransformerConfig(width=32, depth=2, num_heads=2),
        vision_input=VisionInputConfig(patch_size=4, max_tokens=64),
        speech_input=SpeechInputConfig(num_mels=16, max_seconds=4.0),
        summaries=summaries,
        vocabulary=VocabularyConfig(text=512, vision=16, speech=16),
        max_text_tokens=48,
        picture_size=(12, 16),
        spoken_seconds=0.6,
        embedding_dim=16,
        matryoshka=(8,),
    )


GENERATES = ("image", "text", "speech")
COLOURS = {
    "red": ("红色", (220, 40, 40), 300.0),
    "green": ("绿色", (40, 200, 60), 600.0),
    "blue": ("蓝色", (50, 70, 220), 1200.0),
    "white": ("白色", (240, 240, 240), 2400.0),
}
"""The classes of the tiny data: Chinese word, RGB of the picture, pitch of the speech in Hz."""


@functools.cache
def tiny_tokenizer() -> bytes:
    """A SentencePiece model of at most 300 pieces, trained on the sentences of the tiny data."""
    sentences = [_sentence(word, i) for i in range(4) for word in COLOURS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.model"
        train_tokenizer(sentences, path, vocab_size=300)
        return path.read_bytes()


def tiny_tokenizers() -> Tokenizers:
    """Tokenizers of random weights that fit the tiny model; a code is a patch or a token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small: dict[str, Any] = {"levels": (4, 4), "width": 8, "depth": 1}
        vision = VisionTokenizer(VisionTokenizerConfig(strides=(4,), **small))
        speech_input = tiny_model_config().speech_input
        speech = SpeechTokenizer(
            SpeechTokenizerConfig(strides=(2, 2), speech_input=speech_input, **small)
        )
    return Tokenizers(vision=vision.eval(), speech=speech.eval())


def tiny_model(*, summaries: bool = True) -> TrimodalModel:
    """A model of random weights with its processor, in evaluation mode; the same in every call."""
    config = tiny_model_config(summaries=summaries)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TrimodalModel(TrimodalConfig(architecture=to_dict(config), generates=GENERATES))
        # a new model's fusion adds nothing, a trained one's does
        torch.nn.init.normal_(model.fusion.projection.weight, std=0.2)
    model.processor = TrimodalProcessor(config, tiny_tokenizer(), tiny_tokenizers())
    return model.eval()


def write_tiny_manifest(
    folder: Path, rows: int = 16, name: str = "train", *, complete: bool = False
) -> Path:
    """Write pictures, speech and `NAME.jsonl`, in which the three modalities tell the same colour.

    Of every eight rows, four have all modalities, three have two of them and one has one, unless
    `complete`. Sizes, durations and rates differ, and so does the noise of sets of other names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_row(folder, name, i, complete), ensure_ascii=False) for i in range(rows)]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _present(index: int, complete: bool) -> tuple[str, ...]:
    modalities = ("image", "text", "speech")
    block, place = divmod(index, 8)
    if complete or place < 4:
        return modalities
    if place == 7:
        return (modalities[block % 3],)
    return tuple(modality for modality in modalities if modality != modalities[place - 4])


def _sentence(word: str, index: int) -> str:
    chinese = COLOURS[word][0]
    return (f"a {word} square", f"{chinese}的方块", f"the square is {word}", f"方块是{chinese}")[
        index % 4
    ]


def _row(folder: Path, name: str, index: int, complete: bool) -> dict[str, str]:
    word = list(COLOURS)[(index + index // 8) % len(COLOURS)]
    present = _present(index, complete)
    row = {"id": f"{name}-{index}", "label": word, "group": word, "speaker": f"{name}-{index % 3}"}
    if "text" in present:
        row |= {"text": _sentence(word, index), "lang": "zh" if index % 2 else "en"}
    if "image" in present:
        row["image"] = f"{name}-{index}.png"
        _write_picture(folder / row["image"], word, generator("picture", name, index))
    if "speech" in present:
        row["speech"] = f"{name}-{index}.wav"
        _write_speech(folder / row["speech"], word, generator("speech", name, index))
    return row


def _write_picture(path: Path, word: str, rng: np.random.Generator) -> None:
    height, width = rng.integers(6, 17, 2)
    noise = rng.normal(0, 12, (height, width, 3))
    pixels = (np.array(COLOURS[word][1]) + noise).clip(0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _write_speech(path: Path, word: str, rng: np.random.Generator) -> None:
    import soundfile

    rate = int(rng.choice([8_000, 16_000, 22_050]))
    seconds = np.arange(int(rng.uniform(0.2, 0.5) * rate)) / rate
    pitch = COLOURS[word][2] * rng.uniform(0.95, 1.05)
    tone = 0.3 * np.sin(2 * np.pi * pitch * seconds) + rng.normal(0, 0.01, len(seconds))
    soundfile.write(path, tone.astype(np.float32), rate, subtype="PCM_16")
