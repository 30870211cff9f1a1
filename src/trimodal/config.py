"""The configuration of a run: strict YAML, then `key=value` overrides, as frozen dataclasses.

config = load_config("configs/demo.yaml", ["training.max_steps=10"])
"""

import contextlib
import copy
import dataclasses
import difflib
import itertools
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml

from trimodal.errors import ConfigError

MOST_NODES = 10_000
NO_PATH = re.compile("[\0\ud800-\udfff]")
T = TypeVar("T")


class Bounds(NamedTuple):
    """The least and the most that a number may be; stands in the annotation of a field."""

    least: float
    most: float = math.inf
    above: bool = False
    """The least itself is refused."""


Count = Annotated[int, Bounds(1)]
Natural = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]
Amount = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]


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
class DataConfig:
    """What is trained on."""

    train: tuple[str, ...]
    """Manifests, read as one."""
    tokenizer: str
    """A SentencePiece model, see `trimodal tokenizer train text`."""
    validation: str | None = None
    test: str | None = None
    cache_gigabytes: Amount = 2.0
    """Decoded media kept in memory by each loader process."""
    num_workers: Natural = 1
    vision_augment: VisionAugmentConfig = field(default_factory=VisionAugmentConfig)
    speech_augment: SpeechAugmentConfig = field(default_factory=SpeechAugmentConfig)

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError("data.train: names no manifest")


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
    vision_input: VisionInputConfig = field(default_factory=VisionInputConfig)
    speech_input: SpeechInputConfig = field(default_factory=SpeechInputConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    max_text_tokens: Count = 512
    embedding_dim: Count = 256
    pooling_orders: Annotated[int, Bounds(0, 16)] = 2
    """Cosine moments over rows and over columns that are pooled beside the mean."""
    matryoshka: tuple[int, ...] = ()
    """Shorter prefixes of the embedding that are trained as embeddings of their own."""

    def __post_init__(self) -> None:
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
    vision_ratio: Share = 0.6
    text_ratio: Share = 0.3
    speech_ratio: Share = 0.5
    vision_block: Count = 1
    """Side of the square blocks of patches that are hidden together."""
    speech_span: Annotated[int, Bounds(3)] = 3
    """Tokens hidden together; three are wider than the frontend's receptive field."""


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """The objectives of a run; one that is left out, or whose weight is 0, is not computed."""

    contrastive: ContrastiveConfig | None = None
    masked: MaskedConfig | None = None

    def __post_init__(self) -> None:
        if not any(o and o.weight > 0 for o in (self.contrastive, self.masked)):
            raise ConfigError("objectives: none has a weight above 0, so nothing would be learnt")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
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
    betas: tuple[Share, Share] = (0.9, 0.98)
    max_grad_norm: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: Count = 200
    validate_every: Natural = 0
    """Steps between retrieval tests on `data.validation`; 0 for none."""
    keep_checkpoints: Count = 2
    init_from: str | None = None
    """A model folder whose weights training starts from."""
    tensorboard: bool = True

    def __post_init__(self) -> None:
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
        if self.training.validate_every and self.data.validation is None:
            raise ConfigError("training.validate_every: needs data.validation, which names no file")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply `dotted.key=value` overrides, whose values are YAML too.

    Raises:
        ConfigError: the file cannot be read, or a key or a value is not what a run takes.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        tree = _read(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no keys")
    for override in overrides:
        _override(tree, override)
    return parse(RunConfig, tree, "")


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not of the form key=value")
    *parents, leaf = key.split(".")
    node: Any = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: {parent} is a value, it has no keys below it")
    try:
        node[leaf] = _read(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {_short(text)} is not a YAML value: {error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dictionaries, lists and scalars, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(config))


def dump_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration, which `load_config` reads back to an equal one."""
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def parse(cls: type[T], tree: object, path: str) -> T:
    """Build the dataclass `cls` from plain dictionaries; `path` is where in the file this is.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a combination that cannot be.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path or 'the configuration'}: expected keys, got {_short(tree)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    prefix = f"{path}." if path else ""
    for key in tree:
        if key not in fields:
            name = _short(key).strip("'")
            raise ConfigError(f"{prefix}{name}: no such key{_nearest(name, list(fields))}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise ConfigError(f"{prefix}{name}: missing")
    values = {key: _value(hints[key], item, f"{prefix}{key}") for key, item in tree.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        message = str(error)
        where = "" if not path or message.startswith(path.split(".")[-1]) else f"{path}: "
        raise ConfigError(where + message) from None


def _nearest(key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; the keys are {', '.join(names)}"


def _short(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # hexadecimal, it may have more digits than Python prints
        return "a number of thousands of digits"


def _read(text: str) -> Any:
    """One YAML value.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        return _Loader(text).get_single_data()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (LookupError, AttributeError, OverflowError):  # what PyYAML lets through
        raise ValueError("a value is not what its tag says") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """YAML without tags, in which a key stands once and an alias is a copy of what it names."""

    def get_single_node(self) -> Any:
        return _unshared(super().get_single_node(), itertools.count(1))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                cause = f"{key.value} stands twice"
                raise yaml.constructor.ConstructorError(None, None, cause, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _unshared(node: Any, count: Iterator[int]) -> Any:
    """A copy without shared parts: an override changes one place, and no alias multiplies."""
    if next(count) > MOST_NODES:
        raise yaml.YAMLError(f"holds more than {MOST_NODES} values")
    node = copy.copy(node)
    if isinstance(node, yaml.SequenceNode):
        node.value = [_unshared(item, count) for item in node.value]
    elif isinstance(node, yaml.MappingNode):
        node.value = [tuple(_unshared(part, count) for part in pair) for pair in node.value]
    return node


def _value(hint: Any, item: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse(hint, item, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if item is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), item, path)
    if origin is Annotated:
        return _bounded(_value(arguments[0], item, path), arguments[1], path)
    if origin is Literal:
        if item not in arguments:
            allowed = ", ".join(map(str, arguments))
            raise ConfigError(f"{path}: {_short(item)} is not one of {allowed}")
        return item
    if origin is tuple:
        return _tuple(arguments, item, path)
    return _scalar(hint, item, path)


def _bounded(value: Any, bounds: Bounds, path: str) -> Any:
    if bounds.most < math.inf and not bounds.least <= value <= bounds.most:
        raise ConfigError(f"{path}: {_short(value)} is not in [{bounds.least}, {bounds.most}]")
    if value < bounds.least or (bounds.above and value == bounds.least):
        limit = "above" if bounds.above else "at least"
        raise ConfigError(f"{path}: must be {limit} {bounds.least}, got {_short(value)}")
    return value


def _tuple(arguments: tuple[Any, ...], item: Any, path: str) -> tuple[Any, ...]:
    items = [item] if isinstance(item, str) else item
    if not isinstance(items, list | tuple):
        raise ConfigError(f"{path}: expected a list, got {_short(item)}")
    if arguments[-1] is not Ellipsis and len(items) != len(arguments):
        raise ConfigError(f"{path}: expected {len(arguments)} values, got {len(items)}")
    return tuple(_value(arguments[0], value, f"{path}[{i}]") for i, value in enumerate(items))


def _scalar(hint: Any, item: Any, path: str) -> Any:
    if hint is float and type(item) in (int, str):  # YAML 1.1 reads 1e-4 as a string
        with contextlib.suppress(ValueError, OverflowError):
            item = float(item)
    if type(item) is not hint or (isinstance(item, float) and not math.isfinite(item)):
        raise ConfigError(f"{path}: expected {hint.__name__}, got {_short(item)}")
    if isinstance(item, str) and NO_PATH.search(item):
        raise ConfigError(f"{path}: {_short(item)} holds a character that no path can")
    return item
