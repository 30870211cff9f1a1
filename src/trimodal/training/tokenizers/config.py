"""How the tokenizers and the vocoder are trained: strict YAML, then `key=value` overrides.

config = load_training("vision", "configs/tokenizers/digits_vision.yaml", ["training.max_steps=10"])
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from trimodal.config import (
    SpeechAugmentConfig,
    TrainingConfig,
    VisionAugmentConfig,
    VisionInputConfig,
)
from trimodal.errors import ConfigError
from trimodal.schema import Amount, Bounds, Count, Natural, Positive, Share, override, parse
from trimodal.schema import read_tree as read_file
from trimodal.tokenizers.config import (
    SpeechTokenizerConfig,
    VisionTokenizerConfig,
    VocoderConfig,
)

Seed = Annotated[int, Bounds(0, 2**32 - 1)]


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """AdamW with warm-up and a cosine."""

    max_steps: Count = 20_000
    batch_size: Count = 32
    learning_rate: Positive = 5e-4
    min_learning_rate: Amount = 0.0
    warmup_steps: Natural = 200
    weight_decay: Amount = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)
    max_grad_norm: Positive = 1.0
    checkpoint_every: Count = 500

    def __post_init__(self) -> None:
        self.as_training()

    def as_training(self) -> TrainingConfig:
        """The same for the optimizer and the schedule that the model has too."""
        fields = dataclasses.fields(self)
        values = {f.name: getattr(self, f.name) for f in fields if f.name != "batch_size"}
        return TrainingConfig(**values)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """A discriminator of patches with the hinge loss (Lim and Ye, 2017); off unless weighted."""

    weight: Amount = 0.0
    start_step: Natural = 0
    """Before it, there is none."""
    learning_rate: Positive = 2e-4
    width: Count = 32


@dataclass(frozen=True, kw_only=True)
class VisionTokenizerTraining:
    """A vision tokenizer and how it is trained."""

    seed: Seed = 0
    tokenizer: VisionTokenizerConfig = field(default_factory=VisionTokenizerConfig)
    vision_input: VisionInputConfig = field(default_factory=VisionInputConfig)
    """As in the model that will use the codes; patches must be whole codes."""
    crop: Count = 256
    """Most pixels a side of what is trained on at once; a larger picture is cropped at random."""
    ssim_weight: Amount = 0.5
    spread_weight: Amount = 0.03
    """Of what keeps the encoder from using few of its codes."""
    augment: VisionAugmentConfig = field(default_factory=VisionAugmentConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    training: ScheduleConfig = field(default_factory=ScheduleConfig)
    cache_gigabytes: Amount = 2.0

    def __post_init__(self) -> None:
        stride, patch = self.tokenizer.stride, self.vision_input.patch_size
        if patch % stride:
            raise ConfigError(
                f"vision_input.patch_size: {patch} is no multiple of the {stride} pixels of a code"
            )
        if self.crop < stride:
            raise ConfigError(f"crop: {self.crop} is less than the {stride} pixels of a code")


@dataclass(frozen=True, kw_only=True)
class SpeechTokenizerTraining:
    """A speech tokenizer and how it is trained."""

    seed: Seed = 0
    tokenizer: SpeechTokenizerConfig = field(default_factory=SpeechTokenizerConfig)
    """`mean` and `std` are measured, whatever stands here."""
    crop_frames: Count = 200
    squared_weight: Amount = 1.0
    difference_weight: Amount = 1.0
    """Of the error in the change from one frame to the next."""
    spread_weight: Amount = 0.03
    """Of what keeps the encoder from using few of its codes."""
    augment: SpeechAugmentConfig = field(default_factory=SpeechAugmentConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    training: ScheduleConfig = field(default_factory=ScheduleConfig)
    cache_gigabytes: Amount = 2.0

    def __post_init__(self) -> None:
        if self.crop_frames < self.tokenizer.stride:
            raise ConfigError(
                f"crop_frames: {self.crop_frames} are less than the {self.tokenizer.stride} "
                "frames of a code"
            )


@dataclass(frozen=True, kw_only=True)
class VocoderTraining:
    """A vocoder and how it is trained."""

    seed: Seed = 0
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    tokenizer: str | None = None
    """Folder of the speech tokenizer whose frames it will be given."""
    tokenized: Share = 0.5
    """Fraction of the utterances whose frames go through that tokenizer."""
    crop_frames: Count = 64
    mel_weight: Amount = 1.0
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    training: ScheduleConfig = field(default_factory=ScheduleConfig)
    cache_gigabytes: Amount = 2.0


AnyTraining = VisionTokenizerTraining | SpeechTokenizerTraining | VocoderTraining

TRAININGS: dict[str, type[AnyTraining]] = {
    "vision": VisionTokenizerTraining,
    "speech": SpeechTokenizerTraining,
    "vocoder": VocoderTraining,
}
"""By what stands behind `trimodal tokenizer train`."""


def load_training(
    what: str, path: str | Path | None = None, overrides: Sequence[str] = ()
) -> AnyTraining:
    """Read a YAML file, or the defaults without one, and apply `dotted.key=value` overrides.

    Args:
        what: a key of `TRAININGS`.
        path: the file.
        overrides: their values are YAML too.

    Raises:
        ConfigError: the file cannot be read, or a key or a value is not what training takes.
    """
    tree = read_file(path) if path is not None else {}
    for item in overrides:
        override(tree, item)
    return parse(TRAININGS[what], tree, "")
