"""What is left of media that a tokenizer has turned into codes and back.

results = measure("runs/demo/tokenizers/vision_tokenizer", ["data/digits/test.jsonl"])
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimodal.config import VisionInputConfig
from trimodal.data import read_manifests
from trimodal.data.manifest import Row
from trimodal.errors import ConfigError
from trimodal.evaluation.cepstral import waveform_distortion
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.processors.vision import unpatched
from trimodal.tokenizers.fsq import perplexity, usage
from trimodal.tokenizers.speech import SpeechTokenizer
from trimodal.tokenizers.stored import stored_kind
from trimodal.tokenizers.tokenizers import Tokenizers
from trimodal.tokenizers.vision import VisionTokenizer
from trimodal.tokenizers.vocoder import Vocoder
from trimodal.training.tokenizers.losses import psnr
from trimodal.training.tokenizers.media import MediaFiles
from trimodal.training.tokenizers.task import histogram


def measure(
    folder: str | Path, data: Sequence[str | Path], tokenizer: str | Path | None = None
) -> dict[str, float]:
    """Measure a stored tokenizer or vocoder on every file of manifests, each counted once.

    Args:
        folder: what training wrote.
        data: manifests.
        tokenizer: the speech tokenizer through which a vocoder is measured.

    Raises:
        TrimodalError: the folder or the data cannot be used, or a vocoder has no tokenizer.
    """
    kind = stored_kind(folder)
    rows = read_manifests(data)
    if kind == VisionTokenizer.kind:
        return measure_vision(VisionTokenizer.load(folder), rows)
    if kind == SpeechTokenizer.kind:
        return measure_speech(SpeechTokenizer.load(folder), rows)
    vocoder = Vocoder.load(folder)
    if tokenizer is None:
        raise ConfigError("--tokenizer: a vocoder is measured on what a speech tokenizer gives")
    return measure_vocoder(vocoder, SpeechTokenizer.load(tokenizer), rows)


def measure_vision(tokenizer: VisionTokenizer, rows: Sequence[Row]) -> dict[str, float]:
    """`psnr` in dB, of the error over all values of all pictures; `usage`, `perplexity`."""
    size = tokenizer.config.stride
    processor = VisionProcessor(VisionInputConfig(patch_size=size))
    files = MediaFiles(rows, "image", lambda path: (processor.decode(path),))
    media = [processor.medium(files[i][0]) for i in range(len(files))]
    pixels = [unpatched(medium.features, medium.grid, size) for medium in media]
    tokenizers = Tokenizers(vision=tokenizer)
    codes = tokenizers.image_codes(pixels)
    pictures = tokenizers.pictures(codes)
    errors, count = 0.0, 0
    for target, picture in zip(pixels, pictures, strict=True):
        got = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
        errors += float((got - target).square().sum())
        count += target.numel()
    return {"psnr": psnr(errors / count), **_use(codes, tokenizer.config.num_codes)}


def measure_speech(tokenizer: SpeechTokenizer, rows: Sequence[Row]) -> dict[str, float]:
    """`error`, the mean absolute error of normalised frames; `usage`, `perplexity`."""
    processor = SpeechProcessor(tokenizer.config.speech_input)
    files = MediaFiles(rows, "speech", lambda path: (processor.frames(processor.decode(path)),))
    frames = [files[i][0] for i in range(len(files))]
    tokenizers = Tokenizers(speech=tokenizer)
    codes = tokenizers.speech_codes(frames)
    errors, size = 0.0, 0
    for target, got in zip(frames, tokenizers.frames(codes), strict=True):
        errors += float((got[: len(target)] - target).abs().sum())
        size += target.numel()
    return {"error": errors / size, **_use(codes, tokenizer.config.num_codes)}


def measure_vocoder(
    vocoder: Vocoder, tokenizer: SpeechTokenizer, rows: Sequence[Row]
) -> dict[str, float]:
    """Mel-cepstral distortion in dB of utterances that were codes, frame by frame.

    Returns:
        `distortion`, by the vocoder, and `griffin_lim`, by that, both against the recordings.
    """
    processor = SpeechProcessor(tokenizer.config.speech_input)
    files = MediaFiles(rows, "speech", lambda path: (processor.decode(path),))
    waveforms = [files[i][0] for i in range(len(files))]
    neural = Tokenizers(speech=tokenizer, vocoder=vocoder)
    codes = neural.speech_codes([processor.frames(waveform) for waveform in waveforms])
    results = {"distortion": neural, "griffin_lim": Tokenizers(speech=tokenizer)}
    return {
        name: _distortion(tokenizers.waveforms(codes), waveforms, processor)
        for name, tokenizers in results.items()
    }


def _distortion(
    given: Sequence[np.ndarray], recorded: Sequence[Tensor], processor: SpeechProcessor
) -> float:
    distances = [
        waveform_distortion(torch.from_numpy(a)[: len(b)], b[: len(a)], processor, warp=False)
        for a, b in zip(given, recorded, strict=True)
    ]
    return sum(distances) / len(distances)


def _use(codes: Sequence[Tensor], num_codes: int) -> dict[str, float]:
    counts = histogram(torch.cat([item.flatten() for item in codes]), num_codes)
    return {"usage": usage(counts), "perplexity": perplexity(counts)}
