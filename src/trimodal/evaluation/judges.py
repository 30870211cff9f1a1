"""Judges of generated media: two small classifiers that never see the model they judge.

judges = load_judges("runs/judges")
probability_NC, features_ND = judges.judge_images([picture_HW3])
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.data.manifest import manifest_digest
from trimodal.errors import ConfigError, DataError, PathError, StorageError
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.schema import Bounds, parse, to_dict
from trimodal.storage import Source, refusal, write_json, write_whole
from trimodal.weights import check_weights, read_weights

KIND = "judges"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
BATCH, CHUNK = 64, 512
Input = Literal["image", "speech"]
Judged = tuple[np.ndarray, np.ndarray]
"""Probabilities (N, C) of the labels and features (N, D), both float32."""


@dataclass(frozen=True, kw_only=True)
class JudgesConfig:
    """What the judges know; saved with their weights."""

    kind: Literal["judges"] = KIND
    labels: tuple[str, ...]
    """At least two, sorted."""
    inputs: tuple[Input, ...] = ("image", "speech")
    """Of which modalities there is a judge."""
    side: Annotated[int, Bounds(8, 512)] = 32
    """Pixels to which both sides of a picture are stretched."""
    image_width: Annotated[int, Bounds(1, 1024)] = 32
    speech_width: Annotated[int, Bounds(1, 1024)] = 16
    features: Annotated[int, Bounds(1, 4096)] = 64
    """D, the numbers before the last layer."""
    speech_input: SpeechInputConfig = field(default_factory=lambda: SpeechInputConfig(num_mels=64))
    manifest: str = ""
    """SHA-256 of the manifest that they were trained on."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < 2 or list(self.labels) != sorted(set(self.labels)):
            raise ConfigError("labels: must be two or more, sorted, each once")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ConfigError("inputs: must be image, speech or both")


class ImageJudge(nn.Module):
    """A convolutional classifier of pictures of one size."""

    def __init__(self, config: JudgesConfig) -> None:
        super().__init__()
        width = config.image_width
        self.layers = nn.Sequential(
            *_layer(3, width, (2, 2)),
            *_layer(width, 2 * width, (2, 2)),
            *_layer(2 * width, 2 * width, (1, 1)),
            *_layer(2 * width, 3 * width, (1, 1)),
            nn.AdaptiveAvgPool2d(4),  # where a stroke is matters, so places are kept apart
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(3 * width * 16, config.features),
            nn.GELU(),
        )
        self.classifier = nn.Linear(config.features, len(config.labels))

    def forward(self, pixels_N3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and features (N, D) of values in [-1, 1]."""
        features_ND = self.layers(pixels_N3SS)
        return self.classifier(features_ND), features_ND


class SpeechJudge(nn.Module):
    """Convolutions over time and mel bands, so that a voice may lie higher or lower; then pooling.

    What lies behind the end of an utterance is set to zero before every convolution over time and
    left out of the pooling, so a padded batch gives what each utterance gives alone.
    """

    def __init__(self, config: JudgesConfig) -> None:
        super().__init__()
        width, bands = config.speech_width, -(-config.speech_input.num_mels // 8)
        self.planes = nn.ModuleList(
            nn.Sequential(*_layer(a, b, stride))
            for a, b, stride in (
                (1, width, (2, 2)),
                (width, 2 * width, (1, 2)),
                (2 * width, 4 * width, (2, 2)),
            )
        )
        self.merge = nn.Linear(4 * width * bands, 6 * width)
        self.context = nn.Conv1d(6 * width, 6 * width, 5, padding=2)
        self.attention = nn.Linear(6 * width, 1)
        self.pooled = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(12 * width, config.features), nn.GELU()
        )
        self.classifier = nn.Linear(config.features, len(config.labels))

    def forward(self, frames_NFM: Tensor, length_N: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and features (N, D) of normalised log-mel frames, padded to F."""
        x = frames_NFM[:, None]
        inside = _inside(length_N, x.shape[2])
        for layer in self.planes:
            x = layer(x * inside[:, None, :, None])
            if x.shape[2] < inside.shape[1]:
                length_N = (length_N + 1) // 2
                inside = _inside(length_N, x.shape[2])
        x = F.gelu(self.merge(x.permute(0, 2, 1, 3).flatten(2))) * inside[:, :, None]
        x = x + F.gelu(self.context(x.transpose(1, 2))).transpose(1, 2)
        outside = inside[:, :, None] == 0
        weight = self.attention(x).masked_fill(outside, -torch.inf).softmax(dim=1)
        largest = x.masked_fill(outside, -torch.inf).amax(dim=1)
        features_ND = self.pooled(torch.cat([(weight * x).sum(dim=1), largest], dim=1))
        return self.classifier(features_ND), features_ND


def _layer(inputs: int, outputs: int, stride: tuple[int, int]) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _inside(length_N: Tensor, size: int) -> Tensor:
    """(N, size) float, 1 where an utterance still goes on."""
    return (torch.arange(size) < length_N[:, None]).float()


class Judges:
    """The judges of one set of labels; either may be missing."""

    def __init__(self, config: JudgesConfig) -> None:
        self.config = config
        self.models = nn.ModuleDict(
            {name: _JUDGES[name](config) for name in sorted(config.inputs)}
        ).eval()
        self.vision = VisionProcessor(VisionInputConfig())
        self.speech = SpeechProcessor(config.speech_input)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the probabilities."""
        return self.config.labels

    def judge_images(self, images: Sequence[np.ndarray]) -> Judged:
        """Judge (H, W, 3) uint8 pictures of any sizes.

        Raises:
            ConfigError: these judges know no pictures.
            DataError: something is no picture.
        """
        model = self._model("image")
        pixels = [self.pixels(self.vision.decode(image)) for image in images]

        def judged(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
            return model(scaled(torch.stack([pixels[i] for i in chosen])))

        return self._judge(range(len(pixels)), judged)

    def judge_speech(self, speech: Sequence[tuple[np.ndarray, int]]) -> Judged:
        """Judge (samples, rate) pairs of any lengths; no samples at all are judged as silence.

        Raises:
            ConfigError: these judges know no speech.
            DataError: something is no speech.
        """
        model = self._model("speech")
        frames = [self.speech.frames(decode_speech(self.speech, pair)) for pair in speech]

        def judged(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
            return model(*padded([frames[i] for i in chosen]))

        # like lengths together, so that little is padded
        return self._judge(sorted(range(len(frames)), key=lambda i: len(frames[i])), judged)

    def pixels(self, image: Tensor) -> Tensor:
        """A (3, H, W) uint8 picture stretched to `side` x `side`."""
        size = (self.config.side, self.config.side)
        resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
        return resized[0].round().clamp(0, 255).to(torch.uint8)

    def _model(self, name: str) -> nn.Module:
        if name not in self.config.inputs:
            raise ConfigError(f"these judges know no {name}, only {self.config.inputs[0]}")
        return self.models[name]

    def _judge(self, order: Sequence[int], judged: Any) -> Judged:
        """Apply `judged` to batches of indices and put the rows back in place."""
        shape = (len(order), len(self.labels)), (len(order), self.config.features)
        probability_NC, features_ND = (np.zeros(size, np.float32) for size in shape)
        with torch.inference_mode():
            for first in range(0, len(order), BATCH):
                chosen = list(order[first : first + BATCH])
                logits_NC, part_ND = judged(chosen)
                probability_NC[chosen] = logits_NC.softmax(dim=1).numpy()
                features_ND[chosen] = part_ND.numpy()
        return probability_NC, features_ND

    def save(self, folder: str | Path) -> None:
        """Write everything `load_judges` needs.

        Raises:
            StorageError: it cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror}") from error
        weights = {key: value.contiguous() for key, value in self.models.state_dict().items()}
        write_whole(folder / WEIGHTS_FILE, save(weights))
        write_json(folder / CONFIG_FILE, to_dict(self.config))


_JUDGES = {"image": ImageJudge, "speech": SpeechJudge}


def decode_speech(processor: SpeechProcessor, pair: tuple[np.ndarray, int]) -> Tensor:
    """The waveform (S,) of generated speech; no samples at all are silence.

    Raises:
        DataError: it is no speech.
    """
    samples, rate = pair
    return processor.decode((samples if len(samples) else np.zeros(1, np.float32), rate))


def scaled(pixels: Tensor) -> Tensor:
    """uint8 as float in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def padded(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Utterances (F, M) as one (N, F, M) tensor and their lengths (N,)."""
    lengths = torch.tensor([len(utterance) for utterance in frames])
    return nn.utils.rnn.pad_sequence(list(frames), batch_first=True), lengths


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a manifest.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return manifest_digest(path)
    except StorageError as error:
        raise DataError(str(error)) from error


@dataclass(frozen=True)
class MediaFile:
    """A picture or an utterance of a manifest."""

    path: Source
    where: str
    """`FILE:LINE` of a row that has it."""
    label: str | None = None


def judge_files(judges: Judges, name: Input, files: Sequence[MediaFile]) -> Judged:
    """Judge files, a few at a time, so that media never fill the memory.

    Raises:
        ConfigError: these judges do not know that modality.
        DataError: `FILE:LINE: cause`, a file cannot be read.
    """
    parts = [judges.judge_images([])] if name == "image" else [judges.judge_speech([])]
    for first in range(0, len(files), CHUNK):
        chosen = files[first : first + CHUNK]
        if name == "image":
            pictures = [read_medium(judges.vision.decode, file) for file in chosen]
            parts.append(judges.judge_images([p.permute(1, 2, 0).numpy() for p in pictures]))
        else:
            rate = judges.config.speech_input.sample_rate
            waveforms = [read_medium(judges.speech.decode, file) for file in chosen]
            parts.append(judges.judge_speech([(w.numpy(), rate) for w in waveforms]))
    probability_NC, features_ND = (np.concatenate(part) for part in zip(*parts, strict=True))
    return probability_NC, features_ND


def read_medium(decode: Callable[[Source], Tensor], file: MediaFile) -> Tensor:
    """Decode one file.

    Raises:
        DataError: `FILE:LINE: cause`.
    """
    try:
        return decode(file.path)
    except DataError as error:
        raise DataError(f"{file.where}: {error}") from error


def load_judges(folder: str | Path) -> Judges:
    """The judges of a folder.

    Raises:
        PathError: the folder is not there, or holds something else.
        StorageError: a file of it is damaged or does not fit the other.
    """
    folder = Path(folder)
    config = read_judges_config(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise StorageError(f"{folder} holds no judges: it has no {WEIGHTS_FILE}")
    with torch.device("meta"):  # takes no memory, whatever the sizes are
        expected = nn.ModuleDict({name: _JUDGES[name](config) for name in config.inputs})
    check_weights(path, expected)
    judges = Judges(config)
    read_weights(judges.models, path)
    return judges


def read_judges_config(folder: Path) -> JudgesConfig:
    """What the judges of a folder know.

    Raises:
        PathError: the folder is not there, or holds something else.
        StorageError: what it holds is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{folder} holds no judges: it has no readable {CONFIG_FILE}"
        raise refusal(message, error) from error
    if not isinstance(tree, dict) or tree.get("kind") != KIND:
        raise PathError(f"{folder} holds something else than judges")
    try:
        return parse(JudgesConfig, tree, "")
    except ConfigError as error:
        raise StorageError(f"{path}: {error}") from error
