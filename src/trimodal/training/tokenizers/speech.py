"""Training of a speech tokenizer.

task = SpeechTask(config, read_manifests(paths))
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trimodal.config import SpeechAugmentConfig
from trimodal.data.row import Row
from trimodal.processors import SpeechProcessor
from trimodal.processors.augmentation import augment_speech
from trimodal.storage import Source
from trimodal.streams import generator, permutation
from trimodal.tokenizers.speech import SpeechTokenizer, length_mask
from trimodal.training.tokenizers.config import SpeechTokenizerTraining
from trimodal.training.tokenizers.discriminator import PatchDiscriminator
from trimodal.training.tokenizers.losses import frame_loss, spread_loss
from trimodal.training.tokenizers.media import Decoded, MediaFiles
from trimodal.training.tokenizers.task import Outcome, Task

MEASURED = 512
"""Utterances over which the statistics of log-mel frames are taken, at most."""


class SpeechTask(Task[SpeechTokenizer]):
    """Crops of normalised frames, padded and masked; L1, L2 and L1 of the changes in time."""

    def __init__(self, config: SpeechTokenizerTraining, rows: Sequence[Row]) -> None:
        super().__init__(config.seed, config.training, config.adversarial)
        self.config = config
        self.processor = SpeechProcessor(config.tokenizer.speech_input)
        room = int(config.cache_gigabytes * 2**30)
        self.files = MediaFiles(rows, "speech", self._decode, room)
        self.module = SpeechTokenizer(config.tokenizer)
        self.num_codes = config.tokenizer.num_codes

    def _decode(self, path: Source) -> Decoded:
        return (self.processor.frames(self.processor.decode(path)),)

    def frames(self, step: int, index: int) -> Tensor:
        """(F, M) with F at most `crop_frames`."""
        (frames,) = self.files[index]
        if self.config.augment != SpeechAugmentConfig():
            rng = generator("augment", self.seed, step, index)
            frames = augment_speech(frames, self.config.augment, rng)
        size = min(len(frames), self.config.crop_frames)
        start = generator("crop", self.seed, step, index).integers(len(frames) - size + 1)
        return frames[start : start + size]

    def outcomes(self, step: int) -> Iterator[Outcome]:
        """One batch."""
        indices = self.files.indices(step, self.schedule.batch_size, self.seed)
        first = step * self.schedule.batch_size
        crops = [self.frames(first + place, index) for place, index in enumerate(indices)]
        lengths_N = torch.tensor([len(crop) for crop in crops], device=self.device)
        target, mask_NF1 = self._padded(crops, lengths_N)
        frames, codes, latent = self.module(target, lengths_N)
        loss, absolute = frame_loss(
            frames, target, mask_NF1, self.config.squared_weight, self.config.difference_weight
        )
        stride = self.config.tokenizer.stride
        valid = length_mask(-(-lengths_N // stride), codes.shape[1])[:, 0].bool()
        yield Outcome(
            loss=loss + self.config.spread_weight * spread_loss(latent[valid]),
            share=1.0,
            real=target[:, None],
            fake=(frames * mask_NF1)[:, None],
            codes=codes[valid],
            metrics={"error": float(absolute.detach())},
        )

    def _padded(self, crops: Sequence[Tensor], lengths_N: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F, M) with zeros behind each end, F a multiple of the stride, and what counts."""
        batch = pad_sequence(list(crops), batch_first=True).to(self.device)
        missing = -batch.shape[1] % self.config.tokenizer.stride
        batch = nn.functional.pad(batch, (0, 0, 0, missing))
        return batch, length_mask(lengths_N, batch.shape[1]).transpose(1, 2)

    def discriminator(self) -> nn.Module:
        """Of patches of frames."""
        return PatchDiscriminator(1, self.adversarial.width)

    def complete(self) -> SpeechTokenizer:
        """With the statistics that turn its frames back into log-mel frames of a usual loudness."""
        mean, std = self.statistics()
        self.module.config = dataclasses.replace(self.module.config, mean=mean, std=std)
        return self.module

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the log-mel frames of an utterance, averaged over them."""
        order = permutation(len(self.files), "statistics", self.seed)[:MEASURED]
        means, stds = [], []
        for index in order:
            path, _ = self.files.files[int(index)]
            frames = self.processor.log_mel(self.processor.decode(path))
            means.append(float(frames.mean()))
            stds.append(float(frames.std()))
        return round(sum(means) / len(means), 4), round(max(sum(stds) / len(stds), 1e-3), 4)
