"""Training of a vocoder.

task = VocoderTask(config, read_manifests(paths))
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from trimodal.data.row import Row
from trimodal.errors import ConfigError
from trimodal.processors import SpeechProcessor
from trimodal.schema import to_dict
from trimodal.storage import Source
from trimodal.streams import generator
from trimodal.tokenizers.mel import mel_spectrogram, with_loudness
from trimodal.tokenizers.speech import SpeechTokenizer, length_mask, load_speech_tokenizer
from trimodal.tokenizers.vocoder import Vocoder
from trimodal.training.identity import differences
from trimodal.training.tokenizers.config import VocoderTraining
from trimodal.training.tokenizers.discriminator import SpectrogramDiscriminator
from trimodal.training.tokenizers.losses import stft_loss
from trimodal.training.tokenizers.media import Decoded, MediaFiles
from trimodal.training.tokenizers.task import Outcome, Task

LEAST_MEL = 1e-5


class VocoderTask(Task[Vocoder]):
    """Crops of frames, real or through a tokenizer, and the samples that belong to them."""

    def __init__(self, config: VocoderTraining, rows: Sequence[Row]) -> None:
        super().__init__(config.seed, config.training, config.adversarial)
        self.config = config
        self.processor = SpeechProcessor(config.vocoder.speech_input)
        self.tokenizer = _tokenizer(config)
        room = int(config.cache_gigabytes * 2**30)
        self.files = MediaFiles(rows, "speech", self._decode, room)
        self.module = Vocoder(config.vocoder)
        self.mel = mel_spectrogram(config.vocoder.speech_input)
        num_fft = self.module.num_fft
        self.sizes = (num_fft // 2, num_fft, num_fft * 2)

    def _decode(self, path: Source) -> Decoded:
        """Frames (F, M) and samples (F * hop,) of one loudness."""
        waveform = self.processor.decode(path)
        frames = self.processor.frames(waveform)
        size = len(frames) * self.processor.hop
        waveform = with_loudness(waveform, self.config.vocoder.rms)
        return frames, F.pad(waveform, (0, max(0, size - len(waveform))))[:size]

    def crop(self, step: int, index: int) -> tuple[Tensor, Tensor, bool]:
        """Frames, their samples, and whether the frames are to go through the tokenizer."""
        frames, waveform = self.files[index]
        rng = generator("crop", self.seed, step, index)
        size = min(len(frames), self.config.crop_frames)
        start = int(rng.integers(len(frames) - size + 1))
        hop = self.processor.hop
        samples = waveform[start * hop : (start + size) * hop]
        tokenized = bool(rng.random() < self.config.tokenized)
        return frames[start : start + size], samples, tokenized and self.tokenizer is not None

    def outcomes(self, step: int) -> Iterator[Outcome]:
        """One batch."""
        indices = self.files.indices(step, self.schedule.batch_size, self.seed)
        first = step * self.schedule.batch_size
        crops = [self.crop(first + place, index) for place, index in enumerate(indices)]
        lengths_N = torch.tensor([len(frames) for frames, _, _ in crops], device=self.device)
        frames = pad_sequence([c[0] for c in crops], batch_first=True).to(self.device)
        target = pad_sequence([c[1] for c in crops], batch_first=True).to(self.device)
        chosen = torch.tensor([c[2] for c in crops], device=self.device)
        waveform = self.module(self._tokenized(frames, lengths_N, chosen), lengths_N)
        spectral = stft_loss(waveform, target, self.sizes)
        got, wanted = (self._log_mel(w) for w in (waveform, target))
        mel = (got - wanted).abs().mean()
        yield Outcome(
            loss=spectral + self.config.mel_weight * mel,
            share=1.0,
            real=target,
            fake=waveform,
            metrics={"stft": float(spectral.detach()), "mel": float(mel.detach())},
        )

    def _log_mel(self, waveform_NS: Tensor) -> Tensor:
        return self.mel.to(waveform_NS.device)(waveform_NS).clamp_min(LEAST_MEL).log()

    def _tokenized(self, frames_NFM: Tensor, lengths_N: Tensor, chosen_N: Tensor) -> Tensor:
        """The frames, the chosen ones as the tokenizer gives them back."""
        if self.tokenizer is None or not bool(chosen_N.any()):
            return frames_NFM
        tokenizer = self.tokenizer.to(self.device)
        stride, size = tokenizer.config.stride, frames_NFM.shape[1]
        frames, lengths = frames_NFM[chosen_N], lengths_N[chosen_N]
        whole = F.pad(frames, (0, 0, 0, -size % stride))
        decoded = tokenizer.decode(tokenizer.encode(whole, lengths), -(-lengths // stride))
        decoded = decoded[:, :size] * length_mask(lengths, size).transpose(1, 2)
        return frames_NFM.clone().masked_scatter(
            chosen_N[:, None, None].expand_as(frames_NFM), decoded
        )

    def discriminator(self) -> nn.Module:
        """Of spectrograms."""
        return SpectrogramDiscriminator(self.sizes, self.adversarial.width)


def _tokenizer(config: VocoderTraining) -> SpeechTokenizer | None:
    """The tokenizer whose frames are to be turned into speech.

    Raises:
        ConfigError: it reads other frames than the vocoder.
    """
    if config.tokenizer is None:
        return None
    tokenizer = load_speech_tokenizer(config.tokenizer)
    theirs, ours = tokenizer.config.speech_input, config.vocoder.speech_input
    if theirs != ours:
        changed = differences(to_dict(theirs), to_dict(ours)).replace(" was ", " is ")
        raise ConfigError(f"vocoder.speech_input: {config.tokenizer} reads other frames: {changed}")
    return tokenizer
