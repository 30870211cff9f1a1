"""What is left of media that a tokenizer has turned into codes and back.

results = measure("runs/demo/tokenizers/vision_tokenizer", ["data/digits/test.jsonl"])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trimodal.config import VisionInputConfig
from trimodal.data import read_manifests
from trimodal.data.row import Row
from trimodal.errors import ConfigError
from trimodal.evaluation.cepstral import waveform_distortion
from trimodal.evaluation.judges import Judged, Judges, load_judges
from trimodal.evaluation.survival import Survival
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
    folder: str | Path,
    data: Sequence[str | Path],
    tokenizer: str | Path | None = None,
    judges: str | Path | None = None,
) -> dict[str, float]:
    """Measure a stored tokenizer or vocoder on every file of manifests, each counted once.

    Args:
        folder: what training wrote.
        data: manifests.
        tokenizer: the speech tokenizer through which a vocoder is measured.
        judges: a folder of judges; with them, the results also hold what `Survival.measure` gives
            of the files whose label the judges know.

    Raises:
        TrimodalError: a folder or the data cannot be used, or a vocoder has no tokenizer.
    """
    kind = stored_kind(folder)
    rows = read_manifests(data)
    known = None if judges is None else load_judges(judges)
    if kind == VisionTokenizer.kind:
        return measure_vision(VisionTokenizer.load(folder), rows, known)
    if kind == SpeechTokenizer.kind:
        return measure_speech(SpeechTokenizer.load(folder), rows, known)
    vocoder = Vocoder.load(folder)
    if tokenizer is None:
        raise ConfigError("--tokenizer: a vocoder is measured on what a speech tokenizer gives")
    return measure_vocoder(vocoder, SpeechTokenizer.load(tokenizer), rows, known)


def measure_vision(
    tokenizer: VisionTokenizer, rows: Sequence[Row], judges: Judges | None = None
) -> dict[str, float]:
    """`psnr` in dB, of the error over all values of all pictures; `usage`, `perplexity`."""
    size = tokenizer.config.stride
    processor = VisionProcessor(VisionInputConfig(patch_size=size))
    files = MediaFiles(rows, "image", lambda path: (processor.decode(path),))
    survival = _survival(judges, "image", rows, files)
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
    results = {"psnr": psnr(errors / count), **_use(codes, tokenizer.config.num_codes)}
    if survival is not None:
        judged = survival.judges.judge_images(survival.chosen(pictures))
        results |= survival.measure({"": judged})
    return results


def measure_speech(
    tokenizer: SpeechTokenizer, rows: Sequence[Row], judges: Judges | None = None
) -> dict[str, float]:
    """`error`, the mean absolute error of normalised frames; `usage`, `perplexity`.

    What judges hear was made of the codes by Griffin and Lim's iteration.
    """
    processor = SpeechProcessor(tokenizer.config.speech_input)
    files = MediaFiles(rows, "speech", lambda path: (processor.decode(path),))
    survival = _survival(judges, "speech", rows, files)
    waveforms = [files[i][0] for i in range(len(files))]
    frames = [processor.frames(waveform) for waveform in waveforms]
    tokenizers = Tokenizers(speech=tokenizer)
    codes = tokenizers.speech_codes(frames)
    errors, size = 0.0, 0
    for target, got in zip(frames, tokenizers.frames(codes), strict=True):
        errors += float((got[: len(target)] - target).abs().sum())
        size += target.numel()
    results = {"error": errors / size, **_use(codes, tokenizer.config.num_codes)}
    if survival is not None:
        given = tokenizers.waveforms(survival.chosen(codes))
        judged = _heard(survival, given, survival.chosen(waveforms), processor)
        results |= survival.measure({"griffin_lim": judged})
    return results


def measure_vocoder(
    vocoder: Vocoder,
    tokenizer: SpeechTokenizer,
    rows: Sequence[Row],
    judges: Judges | None = None,
) -> dict[str, float]:
    """Mel-cepstral distortion in dB of utterances that were codes, frame by frame.

    Returns:
        `distortion`, by the vocoder, and `griffin_lim`, by that, both against the recordings.
    """
    processor = SpeechProcessor(tokenizer.config.speech_input)
    files = MediaFiles(rows, "speech", lambda path: (processor.decode(path),))
    survival = _survival(judges, "speech", rows, files)
    waveforms = [files[i][0] for i in range(len(files))]
    neural = Tokenizers(speech=tokenizer, vocoder=vocoder)
    codes = neural.speech_codes([processor.frames(waveform) for waveform in waveforms])
    results, judged = {}, {}
    for name, ending, tokenizers in (
        ("distortion", "", neural),
        ("griffin_lim", "griffin_lim", Tokenizers(speech=tokenizer)),
    ):
        given = tokenizers.waveforms(codes)
        results[name] = _distortion(given, waveforms, processor)
        if survival is not None:
            chosen = survival.chosen(given), survival.chosen(waveforms)
            judged[ending] = _heard(survival, *chosen, processor)
    return results if survival is None else {**results, **survival.measure(judged)}


def _survival(
    judges: Judges | None,
    name: Literal["image", "speech"],
    rows: Sequence[Row],
    files: MediaFiles,
) -> Survival | None:
    """Made before anything is computed, because it may refuse."""
    if judges is None:
        return None
    return Survival(judges, name, rows, [path for path, _ in files.files])


def _heard(
    survival: Survival,
    given: Sequence[np.ndarray],
    recorded: Sequence[Tensor],
    processor: SpeechProcessor,
) -> Judged:
    """Verdicts on what was made of codes, without what fills the last code of an utterance."""
    rate = processor.config.sample_rate
    pairs = [(a[: len(b)], rate) for a, b in zip(given, recorded, strict=True)]
    return survival.judges.judge_speech(pairs)


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
