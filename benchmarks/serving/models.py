"""The models that are served: random weights of known sizes, as this project stores a model.

folder = towers(Path("models"))
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

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

SIDE = 224
"""Height and width of pictures, in pixels."""
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ol")]
PIECES = 4000
MOST_TOKENS = 256
TOWER = TransformerConfig(width=384, depth=6, num_heads=12)
LEAST = TransformerConfig(width=64, depth=1, num_heads=2)


def words(count: int, draws: random.Random) -> str:
    """A text of so many made-up words."""
    return " ".join("".join(draws.choices(SYLLABLES, k=draws.randint(1, 3))) for _ in range(count))


def towers(folder: Path) -> Path:
    """Towers of the size of MiniLM-L6 for texts and of a small CLIP ViT-B/32 for pictures.

    Both have six blocks of width 384; of speech and of what fuses there is as little as can be.
    """
    return _saved(_shape(vision=TOWER, text=TOWER, trunk=replace(TOWER, depth=1)), folder)


def demo(folder: Path) -> Path:
    """The architecture of `configs/demo.yaml`, without tokenizers of pictures and of speech."""
    config = ModelConfig(
        vision=TransformerConfig(width=128, depth=3, num_heads=4, rope_theta=100.0),
        text=TransformerConfig(width=128, depth=2, num_heads=4),
        speech=TransformerConfig(width=128, depth=4, num_heads=4),
        trunk=TransformerConfig(width=128, depth=2, num_heads=4),
        vision_input=VisionInputConfig(patch_size=2),
        speech_input=SpeechInputConfig(num_mels=64),
        vocabulary=VocabularyConfig(text=1024, vision=256, speech=256),
        picture_size=(8, 8),
        spoken_seconds=1.5,
        embedding_dim=128,
        matryoshka=(32, 64),
    )
    return _saved(config, folder)


def writer(folder: Path) -> Path:
    """A model that writes texts of the same width and depth."""
    return _saved(_shape(vision=LEAST, text=LEAST, trunk=TOWER), folder, ["text"])


def _shape(
    vision: TransformerConfig, text: TransformerConfig, trunk: TransformerConfig
) -> ModelConfig:
    return ModelConfig(
        vision=vision,
        text=text,
        speech=LEAST,
        trunk=trunk,
        vision_input=VisionInputConfig(patch_size=32, max_tokens=(SIDE // 32) ** 2),
        speech_input=SpeechInputConfig(num_mels=16, max_seconds=4.0),
        vocabulary=VocabularyConfig(text=PIECES, vision=16, speech=16),
        max_text_tokens=MOST_TOKENS,
        embedding_dim=384,
        pooling_orders=0,
    )


def _saved(config: ModelConfig, folder: Path, generates: Sequence[str] = ()) -> Path:
    draws = random.Random(0)  # noqa: S311
    torch.manual_seed(0)
    model = TrimodalModel(TrimodalConfig(to_dict(config), generates=generates))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # so that blocks change what they are given, and a slip in one of them shows
            if parameter.dim() > 1 and "table" not in name:
                parameter.mul_(2)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    path = folder / "text.model"
    size = min(config.vocabulary.text, PIECES)
    train_tokenizer([words(12, draws) for _ in range(4000)], path, vocab_size=size)
    model.processor = TrimodalProcessor(config, path.read_bytes())
    model.save_pretrained(folder)
    return folder
