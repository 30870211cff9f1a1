"""The configuration of a run: strict YAML, then `key=value` overrides, as frozen dataclasses.

config = load_config("configs/demo.yaml", ["training.max_steps=10"])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import yaml

from trimodal.config.model import (
    SCHEDULES,
    WEIGHTS,
    ModelConfig,
    SpeechInputConfig,
    TransformerConfig,
    VisionInputConfig,
    VocabularyConfig,
)
from trimodal.config.recipe import AverageConfig, Component, RecipeConfig
from trimodal.errors import ConfigError
from trimodal.schema import (
    Amount,
    Bounds,
    Count,
    Natural,
    Positive,
    Share,
    parse,
    read_tree,
    to_dict,
)

__all__ = [
    "LANGUAGES",
    "SCHEDULES",
    "WEIGHTS",
    "AverageConfig",
    "CausalConfig",
    "Component",
    "Condition",
    "ContrastiveConfig",
    "DataConfig",
    "LengthConfig",
    "MaskedConfig",
    "MatchingConfig",
    "MixtureConfig",
    "ModelConfig",
    "ObjectivesConfig",
    "RecipeConfig",
    "RunConfig",
    "SpeechAugmentConfig",
    "SpeechInputConfig",
    "TargetConfig",
    "TrainingConfig",
    "TransformerConfig",
    "VisionAugmentConfig",
    "VisionInputConfig",
    "VocabularyConfig",
    "dump_config",
    "load_config",
]

LANGUAGES = ("en", "zh")
Condition = Literal[
    "image", "text", "speech", "image+text", "image+speech", "text+speech", "image+text+speech"
]
"""What a target can be predicted from."""


@dataclass(frozen=True, kw_only=True)
class VisionAugmentConfig:
    """Random changes of a training picture; ranges are symmetric about no change."""

    rotate_degrees: Amount = 0.0
    scale: Amount = 0.0
    shear_degrees: Amount = 0.0
    shift: Amount = 0.0
    """Fraction of the height and width."""
    gamma: Amount = 0.0
    """Largest logarithm of the exponent of the grey levels: strokes thinner or thicker."""


@dataclass(frozen=True, kw_only=True)
class SpeechAugmentConfig:
    """Random changes of training speech, made on its log-mel frames."""

    stretch: Amount = 0.0
    """Longest relative change of duration."""
    warp: Amount = 0.0
    """Longest relative change of the frequency axis (vocal-tract length)."""
    tilt: Amount = 0.0
    """Largest spectral tilt, in standard deviations from the lowest to the highest band."""
    noise: Share = 0.0
    """Probability of a noise floor at a random level."""
    shift: Natural = 0
    """Most frames added or cut at either end."""
    frequency_mask: Natural = 0
    """Most adjacent mel bands hidden."""
    time_mask: Share = 0.0
    """Largest fraction of the frames hidden in one span."""


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How much of each manifest a run sees from a step on."""

    from_step: Natural = 0
    weights: tuple[Amount, ...]
    """For each of `data.train`, relative to their sum."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on."""

    train: tuple[str, ...]
    """Manifests, or folders of shards, read as one."""
    mixture: tuple[MixtureConfig, ...] = ()
    """Weights of the manifests, which may change with the step; without, every row counts alike."""
    tokenizer: str
    """A SentencePiece model, see `trimodal tokenizer train text`."""
    tokenizers: str | None = None
    """A folder of learnt tokenizers, see `trimodal tokenizer train vision`."""
    validation: str | None = None
    test: str | None = None
    cache_gigabytes: Amount = 2.0
    """Decoded media kept in memory by each loader process."""
    num_workers: Annotated[int, Bounds(0, 64)] = 1
    """Loader processes of each rank; 0 loads in the process that trains."""
    loader_seconds: Amount = 300.0
    """A step that loader processes do not deliver in this time is asked of new ones; 0 waits."""
    tolerance: Annotated[float, Bounds(0, 1)] = 0.0
    """Share of the samples that may be unusable. They are left out and listed in `skipped.jsonl`; 0
    ends the run at the first."""
    vision_augment: VisionAugmentConfig = field(default_factory=VisionAugmentConfig)
    speech_augment: SpeechAugmentConfig = field(default_factory=SpeechAugmentConfig)

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("data.train: names no manifest")
        steps = [phase.from_step for phase in self.mixture]
        if steps and (steps[0] != 0 or any(b <= a for a, b in pairwise(steps))):
            raise ConfigError(f"data.mixture: from_step must rise from 0, got {steps}")
        for i, phase in enumerate(self.mixture):
            if len(phase.weights) != len(self.train) or not sum(phase.weights):
                raise ConfigError(
                    f"data.mixture[{i}].weights: needs a number for each of {len(self.train)} "
                    "manifests, not all of them 0"
                )


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Contrast of every present pair of modalities."""

    weight: Amount = 1.0
    loss: Literal["infonce", "sigmoid"] = "infonce"
    positives: Literal["sample", "group", "label"] = "group"
    """Which rows belong together; a row without that key belongs to itself alone."""
    fused: Share = 0.5
    """Fraction of the samples for which a fused view is contrasted too."""


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Prediction of hidden parts of an observed modality from the rest and the other modalities."""

    weight: Amount = 0.5
    rate: Share = 0.5
    """Fraction of the samples that get a masked view in a step."""
    vision_target: Literal["features", "codes"] = "features"
    speech_target: Literal["features", "codes", "best_rq"] = "features"
    vision_ratio: Share = 0.6
    text_ratio: Share = 0.3
    speech_ratio: Share = 0.5
    vision_block: Count = 1
    """Side of the square blocks of patches that are hidden together."""
    speech_span: Annotated[int, Bounds(3)] = 3
    """Tokens hidden together; three are wider than the frontend's receptive field."""


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Prediction of masked codes of a target picture or utterance from what is observed."""

    weight: Amount = 1.0
    modalities: tuple[Literal["image", "speech"], ...] = ("image", "speech")
    """What is a target; the tokenizer of each is needed, and `length` to generate speech."""
    rate: Share = 0.5
    """Fraction of the samples that get such a view in a step."""
    drop_condition: Share = 0.1
    """Fraction of these views that observe nothing, for guidance."""
    conditions: Mapping[Condition, Amount] = field(default_factory=dict)
    """Weights of what these views observe; a sample that has none of it gets none of them. Without
    any, half observe a single modality and half any of the sample's subsets of them."""
    label_smoothing: Annotated[float, Bounds(0, 0.9)] = 0.1

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ConfigError("modalities: must name image, speech or both, each once")


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """Prediction of a text from left to right, from what is observed."""

    weight: Amount = 1.0
    rate: Amount = 0.5
    """Such views of a sample in a step, on average; each draws anew what it observes and tells."""
    drop_condition: Share = 0.1
    """Fraction of these views that observe nothing."""
    answers: Share = 0.5
    """Fraction of the texts of a sample with a question that are its answer."""
    conditions: Mapping[Condition, Amount] = field(default_factory=dict)
    """Likewise, of texts that are no answers."""
    label_smoothing: Annotated[float, Bounds(0, 0.9)] = 0.0


@dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """Prediction of the length of a target utterance from what is observed."""

    weight: Amount = 0.1


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Which modalities of a tuple belong together, some being other samples' that look alike."""

    weight: Amount = 0.1
    rate: Share = 0.25
    """Fraction of the samples of which such a tuple is made in a step."""


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """The objectives of a run; one that is left out, or whose weight is 0, is not computed."""

    contrastive: ContrastiveConfig | None = None
    masked: MaskedConfig | None = None
    target: TargetConfig | None = None
    causal: CausalConfig | None = None
    length: LengthConfig | None = None
    matching: MatchingConfig | None = None

    def __post_init__(self) -> None:
        objectives = (self.contrastive, self.masked, self.target, self.causal, self.matching)
        if not any(o and o.weight > 0 for o in objectives):
            raise ConfigError("objectives: none has a weight above 0, so nothing would be learnt")
        if self._asks_lengths and "speech" not in self._targets:
            raise ConfigError("objectives.length: needs speech in objectives.target.modalities")

    @property
    def _targets(self) -> tuple[str, ...]:
        return self.target.modalities if self.target and self.target.weight else ()

    @property
    def _asks_lengths(self) -> bool:
        return bool(self.length and self.length.weight)

    @property
    def generates(self) -> tuple[str, ...]:
        """What a model learns to generate: speech not without its length."""
        learnt = {
            "image": "image" in self._targets,
            "speech": "speech" in self._targets and self._asks_lengths,
            "text": bool(self.causal and self.causal.weight),
        }
        return tuple(name for name in learnt if learnt[name])

    @property
    def tokenized(self) -> tuple[str, ...]:
        """The modalities whose tokenizers are needed."""
        masked = self.masked if self.masked and self.masked.weight else MaskedConfig()
        needed = {
            "vision": "image" in self._targets or masked.vision_target == "codes",
            "speech": "speech" in self._targets or masked.speech_target == "codes",
        }
        return tuple(name for name in needed if needed[name])


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RecipeConfig):
    """How long and how a run trains."""

    max_steps: Count = 1000
    batch_size: Annotated[int, Bounds(2)] = 256
    """Samples a step over all processes."""
    token_budget: Count = 16_384
    """Tokens that one process encodes at once; a larger share is cut into micro-batches."""
    learning_rate: Positive = 5e-4
    min_learning_rate: Amount = 0.0
    warmup_steps: Natural = 100
    """Of a run of fewer steps than these, all."""
    weight_decay: Amount = 0.05
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon takes the matrices within blocks, AdamW the rest, at the same rate."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    max_grad_norm: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: Count = 200
    validate_every: Natural = 0
    """Steps between retrieval tests on `data.validation`; 0 for none."""
    sample_every: Natural = 0
    """Steps between outputs for the first rows of `data.validation`, in `samples/`; 0 for none."""
    keep_checkpoints: Count = 2
    spike: Amount = 0.0
    """How many deviations above the median of the last losses one is left out; 0 for never."""
    watchdog_seconds: Amount = 1800.0
    """Longest step; one that takes longer ends the process, with its stacks printed. 0 for any."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ("tensorboard",)
    """Where numbers go besides `metrics.jsonl`; each reads what it needs from its environment."""
    activation_checkpointing: bool = False
    """Keep only what enters each block, and compute the rest again in the backward pass."""
    compile: bool = False
    """Compile the blocks with torch.compile."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.betas) == 1:
            raise ConfigError("training.betas: 1 would never forget a gradient")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"training.min_learning_rate: {self.min_learning_rate:g} is above learning_rate "
                f"{self.learning_rate:g}"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that `accelerate launch -m trimodal.train` needs."""

    run_dir: str
    seed: Annotated[int, Bounds(0, 2**32 - 1)] = 0
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: ObjectivesConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if not self.run_dir:
            raise ConfigError("run_dir: names no folder")
        needed = self.objectives.tokenized
        if needed and self.data.tokenizers is None:
            raise ConfigError(
                f"data.tokenizers: names no folder; the objectives need the {needed[0]} tokenizer"
            )
        masked = self.objectives.masked
        if masked and masked.speech_target == "best_rq" and not self.model.best_rq_codebooks:
            raise ConfigError("model.best_rq_codebooks: must be positive for speech_target best_rq")
        for key in ("validate_every", "sample_every"):
            if getattr(self.training, key) and self.data.validation is None:
                raise ConfigError(f"training.{key}: needs data.validation, which names no file")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply `dotted.key=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: the file cannot be read, or a key or a value is not what a run takes.
    """
    return parse(RunConfig, read_tree(path, overrides), "")


def dump_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration, which `load_config` reads back to an equal one."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
