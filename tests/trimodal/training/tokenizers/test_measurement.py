from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trimodal.data import read_manifest
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.evaluation.judges import Judged, Judges, JudgesConfig
from trimodal.testing import COLOURS, write_tiny_manifest
from trimodal.tokenizers import SpeechTokenizer, VisionTokenizer, Vocoder
from trimodal.tokenizers.mel import griffin_lim
from trimodal.training.tokenizers.config import (
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
    VocoderTraining,
)
from trimodal.training.tokenizers.measurement import (
    measure,
    measure_speech,
    measure_vision,
    measure_vocoder,
)

LABELS = tuple(sorted(COLOURS))
CHANCE = 1 / len(LABELS)


class _RightJudges(Judges):
    """They tell the colours of the tiny data by rule."""

    def __init__(self) -> None:
        super().__init__(JudgesConfig(labels=LABELS))

    def judge_images(self, images: Sequence[np.ndarray]) -> Judged:
        colours = np.array([COLOURS[label][1] for label in LABELS])
        return self._nearest([image.mean(axis=(0, 1)) for image in images], colours)

    def judge_speech(self, speech: Sequence[tuple[np.ndarray, int]]) -> Judged:
        pitches = [
            np.log([1 + np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)])
            for samples, rate in speech
        ]
        return self._nearest(pitches, np.log([[COLOURS[label][2]] for label in LABELS]))

    def _nearest(self, seen: Sequence[np.ndarray], known: np.ndarray) -> Judged:
        nearest = [int(np.linalg.norm(known - one, axis=1).argmin()) for one in seen]
        return np.eye(len(LABELS), dtype=np.float32)[nearest], np.zeros((len(seen), 64))


class _Book:
    """A code for everything that was ever shown, so that nothing is lost."""

    def __init__(self) -> None:
        self.pages: list[Tensor] = []

    def written(self, items: Tensor) -> Tensor:
        """Codes (...) of vectors (..., D)."""
        codes = torch.arange(len(self.pages), len(self.pages) + items[..., 0].numel())
        self.pages.extend(items.flatten(0, -2))
        return codes.view(items.shape[:-1])

    def read(self, codes: Tensor) -> Tensor:
        """Vectors (..., D) of codes (...)."""
        return torch.stack([self.pages[code] for code in codes.flatten()]).view(*codes.shape, -1)


class _PerfectVision(VisionTokenizer):
    def __init__(self, config: VisionTokenizerTraining) -> None:
        super().__init__(replace(config.tokenizer, levels=(1000, 1000), strides=(1,)))
        self.book = _Book()

    def encode(self, pixels_N3HW: Tensor) -> Tensor:
        return self.book.written(pixels_N3HW.movedim(1, -1))

    def decode(self, codes_NHW: Tensor) -> Tensor:
        return self.book.read(codes_NHW).movedim(-1, 1)


class _GreyVision(_PerfectVision):
    def decode(self, codes_NHW: Tensor) -> Tensor:
        return super().decode(codes_NHW) * 0


class _PerfectSpeech(SpeechTokenizer):
    def __init__(self, config: SpeechTokenizerTraining) -> None:
        super().__init__(replace(config.tokenizer, levels=(1000, 1000), strides=(1,)))
        self.book = _Book()

    def encode(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        return self.book.written(frames_NFM)

    def decode(self, codes_NT: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        return self.book.read(codes_NT)


class _SameSpeech(_PerfectSpeech):
    def decode(self, codes_NT: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        return super().decode(codes_NT * 0)


class _GriffinLimVocoder(Vocoder):
    def forward(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        return griffin_lim(frames_NFM, self.config.speech_input, -9.0, 3.0)


class _SilentVocoder(Vocoder):
    def forward(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        return torch.zeros(len(frames_NFM), frames_NFM.shape[1] * self.hop)


def test_each_kind_has_its_figures(
    tmp_path: Path,
    manifest: Path,
    vision_config: VisionTokenizerTraining,
    speech_config: SpeechTokenizerTraining,
    vocoder_config: VocoderTraining,
) -> None:
    vision = VisionTokenizer(vision_config.tokenizer)
    vision.save(tmp_path / "vision")
    SpeechTokenizer(speech_config.tokenizer).save(tmp_path / "speech")
    Vocoder(vocoder_config.vocoder).save(tmp_path / "vocoder")
    seen = measure(tmp_path / "vision", [manifest])
    assert list(seen) == ["psnr", "usage", "perplexity"]
    assert 0 < seen["usage"] <= 1 <= seen["perplexity"] <= 60
    assert seen == measure_vision(vision, read_manifest(manifest))
    heard = measure(tmp_path / "speech", [manifest])
    assert list(heard) == ["error", "usage", "perplexity"]
    assert 0.1 < heard["error"] < 3  # of frames of variance 1
    sound = measure(tmp_path / "vocoder", [manifest], tmp_path / "speech")
    assert list(sound) == ["distortion", "griffin_lim"]
    assert all(0 < value < 100 for value in sound.values())
    with pytest.raises(ConfigError, match="--tokenizer: a vocoder is measured on"):
        measure(tmp_path / "vocoder", [manifest])


def test_a_folder_of_nothing_is_refused(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(StorageError, match="is not a tokenizer or vocoder"):
        measure(tmp_path, [manifest])


def test_pictures_are_recognised_as_far_as_they_survive(
    tmp_path: Path, vision_config: VisionTokenizerTraining
) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path, complete=True))
    perfect = measure_vision(_PerfectVision(vision_config), rows, _RightJudges())
    assert list(perfect)[3:] == ["judged_originals", "judged", "kept"]
    assert perfect["psnr"] >= 100
    assert (perfect["judged_originals"], perfect["judged"], perfect["kept"]) == (1, 1, 0)
    grey = measure_vision(_GreyVision(vision_config), rows, _RightJudges())
    assert (grey["judged_originals"], grey["judged"], grey["kept"]) == (1, CHANCE, CHANCE - 1)


def test_speech_is_recognised_as_far_as_it_survives(
    tmp_path: Path, speech_config: SpeechTokenizerTraining, vocoder_config: VocoderTraining
) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=8, complete=True))
    perfect = _PerfectSpeech(speech_config)
    heard = measure_speech(perfect, rows, _RightJudges())
    assert list(heard)[3:] == ["judged_originals", "judged_griffin_lim", "kept_griffin_lim"]
    assert (heard["error"], heard["judged_originals"], heard["kept_griffin_lim"]) == (0, 1, 0)
    same = measure_speech(_SameSpeech(speech_config), rows, _RightJudges())
    assert (same["judged_griffin_lim"], same["kept_griffin_lim"]) == (CHANCE, CHANCE - 1)

    vocoder = _GriffinLimVocoder(vocoder_config.vocoder)
    alike = measure_vocoder(vocoder, perfect, rows, _RightJudges())
    assert list(alike)[:5] == ["distortion", "griffin_lim", "judged_originals", "judged", "kept"]
    assert alike["distortion"] == alike["griffin_lim"]
    judged = {key: value for key, value in heard.items() if "judged" in key or "kept" in key}
    assert {key: alike[key] for key in judged} == judged
    assert (alike["judged"], alike["kept"]) == (1, 0)
    silent = measure_vocoder(_SilentVocoder(vocoder_config.vocoder), perfect, rows, _RightJudges())
    assert (silent["judged"], silent["kept"]) == (CHANCE, CHANCE - 1)
    assert (silent["judged_griffin_lim"], silent["kept_griffin_lim"]) == (1, 0)


def test_judges_hear_as_much_as_was_recorded(
    tmp_path: Path, speech_config: SpeechTokenizerTraining
) -> None:
    judges, sizes = _RightJudges(), []

    def judge(speech: Sequence[tuple[np.ndarray, int]]) -> Judged:
        sizes.append([len(samples) for samples, _ in speech])
        return _RightJudges.judge_speech(judges, speech)

    judges.judge_speech = judge
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=4, complete=True))
    measure_speech(SpeechTokenizer(speech_config.tokenizer).eval(), rows, judges)
    made, recorded = (size for size in sizes if size)
    assert made == recorded


def test_stored_judges_are_used_and_bad_ones_refused(
    tmp_path: Path, manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    VisionTokenizer(vision_config.tokenizer).save(tmp_path / "vision")
    for name, config in (
        ("both", JudgesConfig(labels=LABELS)),
        ("deaf", JudgesConfig(labels=LABELS, inputs=("speech",))),
        ("other", JudgesConfig(labels=("a", "b"))),
    ):
        Judges(config).save(tmp_path / name)
    plain = measure(tmp_path / "vision", [manifest])
    judged = measure(tmp_path / "vision", [manifest], judges=tmp_path / "both")
    assert {key: judged[key] for key in plain} == plain
    assert judged["kept"] == judged["judged"] - judged["judged_originals"]
    for name, error, message in (
        ("deaf", ConfigError, "these judges know no image, only speech"),
        ("other", DataError, "has image and a label that these judges know"),
        ("vision", StorageError, "vision holds something else than judges"),
        ("nowhere", StorageError, "nowhere holds no judges"),
    ):
        with pytest.raises(error, match=message):
            measure(tmp_path / "vision", [manifest], judges=tmp_path / name)
