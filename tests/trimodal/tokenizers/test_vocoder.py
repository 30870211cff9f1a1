import torch

from trimodal.config import SpeechInputConfig
from trimodal.testing import assert_close
from trimodal.tokenizers import Vocoder, VocoderConfig


def test_a_padded_batch_gives_what_each_utterance_gives_alone(vocoder: Vocoder) -> None:
    frames = torch.randn(3, 20, 16)
    lengths = [20, 13, 1]
    with torch.no_grad():
        waveform = vocoder(frames, torch.tensor(lengths))
        assert waveform.shape == (3, 20 * 160)
        for i, length in enumerate(lengths):
            alone = vocoder(frames[i : i + 1, :length])[0]
            assert alone.shape == (length * 160,)
            assert_close(waveform[i, : length * 160], alone, "packed-vs-alone-fp32")
            assert not waveform[i, length * 160 :].any()


def test_the_overlap_add_undoes_a_short_time_transform(vocoder: Vocoder) -> None:
    samples = torch.randn(2, 10 * 160)
    window = torch.hann_window(512)
    spectrum = torch.stft(
        samples, 512, 160, window=window, pad_mode="constant", return_complex=True
    )
    mask = torch.ones(2, 1, 11)
    again = vocoder._overlap_add(spectrum.transpose(1, 2), mask)
    assert_close(again, samples, "packed-vs-alone-fp32")


def test_sound_lies_where_its_frame_does(vocoder: Vocoder) -> None:
    click = torch.zeros(512)
    click[256] = 1.0
    spectrum = torch.zeros(1, 11, 257, dtype=torch.complex64)
    spectrum[0, 4] = torch.fft.rfft(click)
    samples = vocoder._overlap_add(spectrum, torch.ones(1, 1, 11))[0]
    assert samples.shape == (1600,)
    assert int(samples.abs().argmax()) == 4 * 160


def test_hop_and_transform_are_those_of_the_frames() -> None:
    config = SpeechInputConfig(sample_rate=8000, num_mels=20, window_ms=32, hop_ms=16)
    vocoder = Vocoder(VocoderConfig(width=8, depth=1, speech_input=config))
    assert (vocoder.hop, vocoder.num_fft) == (128, 256)
    assert vocoder(torch.zeros(1, 5, 20)).shape == (1, 640)


def test_gradients_reach_every_weight_and_huge_frames_give_finite_sound(vocoder: Vocoder) -> None:
    vocoder(torch.randn(2, 9, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vocoder.parameters())
    assert vocoder(torch.randn(1, 9, 16) * 1e6).isfinite().all()


def test_what_is_settled_does_not_hear_what_comes_later(vocoder: Vocoder) -> None:
    """Bit by bit; behind it the window of the first frame that is heard begins, at nothing."""
    frames = torch.randn(1, 24, 16)
    with torch.no_grad():
        before = vocoder(frames)[0]
        for count in range(24):
            changed = frames.clone()
            changed[:, count:] += 1
            first = int((vocoder(changed)[0] != before).int().argmax())
            settled = vocoder.settled(count)
            assert settled <= first < settled + vocoder.hop or settled == first == 0
