"""The architecture of a model, which is saved with it.

config = ModelConfig(embedding_dim=64)
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from trimodal.errors import ConfigError
from trimodal.schema import Bounds, Count, Positive

WEIGHTS = ("fp32", "bf16", "int8")
SCHEDULES = ("cosine", "linear")
"""How the codes that are masked fall to none, see `Decoding.schedule`."""
"""What the matrices of a model that is loaded may be kept in."""


@dataclass(frozen=True, kw_only=True)
class VisionInputConfig:
    """How pictures become patches."""

    patch_size: Count = 16
    max_tokens: Count = 1024
    """A larger picture is scaled down to this many patches, keeping its shape."""
    max_pixels: Count = 40_000_000


@dataclass(frozen=True, kw_only=True)
class SpeechInputConfig:
    """How waveforms become log-mel frames."""

    sample_rate: Annotated[int, Bounds(1000, 192_000)] = 16_000
    num_mels: Annotated[int, Bounds(1, 1024)] = 80
    window_ms: Annotated[float, Bounds(0, 1000, above=True)] = 25.0
    hop_ms: Positive = 10.0
    stride: int = 4
    """Frames a token; the frontend halves twice."""
    max_seconds: Positive = 60.0

    def __post_init__(self) -> None:
        if self.stride != 4:
            raise ConfigError("speech_input.stride: must be 4, the frontend halves frames twice")
        if self.window_ms < self.hop_ms:
            raise ConfigError("speech_input.window_ms: must not be shorter than hop_ms")
        if round(self.hop_ms * self.sample_rate / 1000) < 1:
            raise ConfigError(f"speech_input.hop_ms: {self.hop_ms:g} is shorter than a sample")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A stack of pre-norm blocks."""

    width: Count = 256
    depth: Annotated[int, Bounds(1, 1000)] = 4
    num_heads: Count = 4
    mlp_ratio: Positive = 2.667
    dropout: float = 0.0
    rope_theta: Annotated[float, Bounds(1)] = 10_000.0

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if (self.width // self.num_heads) % 4:
            raise ConfigError(
                f"head size {self.width // self.num_heads} is not a multiple of 4, "
                "which axial rotary positions need"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout} is not in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Padded capacity of each range of the unified vocabulary."""

    text: Count = 8192
    vision: Count = 1024
    speech: Count = 1024


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture; saved with the model."""

    vision: TransformerConfig = field(default_factory=TransformerConfig)
    text: TransformerConfig = field(default_factory=TransformerConfig)
    speech: TransformerConfig = field(default_factory=TransformerConfig)
    trunk: TransformerConfig = field(default_factory=TransformerConfig)
    vision_stem: Literal["linear", "convolutional"] = "linear"
    """How a patch becomes a token; convolutions see its neighbours and learn shapes sooner."""
    summaries: bool = True
    """Whether the trunk sees the embedding of each medium beside its tokens, see
    `docs/architecture.md`."""
    vision_input: VisionInputConfig = field(default_factory=VisionInputConfig)
    speech_input: SpeechInputConfig = field(default_factory=SpeechInputConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    max_text_tokens: Count = 512
    embedding_dim: Count = 256
    vision_codes: Count = 1
    """Codes of the vision tokenizer that one patch covers."""
    speech_codes: Count = 1
    """Codes of the speech tokenizer that one token of the speech encoder covers."""
    best_rq_codebooks: Annotated[int, Bounds(0, 64)] = 0
    """Codebooks of random projections that hidden speech can be predicted over."""
    picture_size: tuple[Count, Count] = (224, 224)
    """Height and width of a generated picture, unless another size is asked for."""
    spoken_seconds: Positive = 10.0
    """Longest generated utterance."""
    pooling_orders: Annotated[int, Bounds(0, 16)] = 2
    """Cosine moments over rows and over columns that are pooled beside the mean."""
    matryoshka: tuple[int, ...] = ()
    """Shorter prefixes of the embedding that are trained as embeddings of their own."""

    def __post_init__(self) -> None:
        size = self.vision_input.patch_size
        if self.vision_stem == "convolutional" and (size < 2 or size & (size - 1)):
            raise ConfigError(
                "vision_stem: convolutions halve patches down to a pixel, and "
                f"vision_input.patch_size {size} is no power of two"
            )
        for dim in self.matryoshka:
            if not 0 < dim < self.embedding_dim:
                raise ConfigError(
                    f"matryoshka: {dim} is not shorter than embedding_dim {self.embedding_dim}"
                )
        if len(set(self.matryoshka)) < len(self.matryoshka):
            raise ConfigError(f"matryoshka: {list(self.matryoshka)} names a length twice")

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Every length at which an embedding may be cut, in rising order."""
        return (*sorted(self.matryoshka), self.embedding_dim)
