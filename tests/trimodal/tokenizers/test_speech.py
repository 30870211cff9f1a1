import pytest
import torch
import torch.nn.functional as F

from trimodal.errors import DataError
from trimodal.testing import assert_close
from trimodal.tokenizers import SpeechTokenizer

LENGTHS = [40, 33, 10, 1]


def test_a_padded_batch_gives_what_each_utterance_gives_alone(speech: SpeechTokenizer) -> None:
    frames = torch.randn(4, 40, 16)
    codes = speech.encode(frames, torch.tensor(LENGTHS))
    counts = torch.tensor([-(-n // 4) for n in LENGTHS])
    decoded = speech.decode(codes, counts)
    for i, (length, count) in enumerate(zip(LENGTHS, counts.tolist(), strict=True)):
        alone = F.pad(frames[i, :length], (0, 0, 0, -length % 4))[None]
        for lengths in (None, torch.tensor([length])):
            assert torch.equal(speech.encode(alone, lengths)[0], codes[i, :count])
        frames_alone = speech.decode(codes[i : i + 1, :count])
        assert_close(decoded[i, : count * 4], frames_alone[0], "packed-vs-alone-fp32")
        assert not codes[i, count:].any()
        assert not decoded[i, count * 4 :].any()


def test_what_lies_behind_the_end_changes_nothing(speech: SpeechTokenizer) -> None:
    frames, lengths = torch.randn(2, 24, 16), torch.tensor([24, 9])
    other = frames.clone()
    other[1, 9:] = 100.0
    assert_close(speech(frames, lengths)[0], speech(other, lengths)[0], "exact")


def test_decoding_the_codes_is_what_forward_gives(speech: SpeechTokenizer) -> None:
    frames = torch.randn(3, 24, 16)
    reconstructed, codes, _ = speech(frames)
    assert torch.equal(codes, speech.encode(frames))
    assert reconstructed.shape == frames.shape
    assert_close(speech.decode(codes), reconstructed, "fp32")


def test_gradients_reach_every_weight_and_no_padding(speech: SpeechTokenizer) -> None:
    frames = torch.randn(2, 16, 16, requires_grad=True)
    reconstructed, *_ = speech(frames, torch.tensor([16, 6]))
    reconstructed.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in speech.parameters())
    assert frames.grad is not None
    assert frames.grad[1, :6].any()
    assert not frames.grad[1, 6:].any()


@pytest.mark.parametrize("shape", [(6, 16), (0, 16), (8, 12)])
def test_frames_that_cannot_be_cut_are_refused(
    speech: SpeechTokenizer, shape: tuple[int, int]
) -> None:
    with pytest.raises(DataError, match="cannot be cut into codes of 4 frames of 16 bands"):
        speech.encode(torch.zeros(1, *shape))


def test_a_code_that_does_not_exist_is_refused(speech: SpeechTokenizer) -> None:
    with pytest.raises(DataError, match=r"codes must lie in 0 \.\. 59"):
        speech.decode(torch.tensor([[0, 60]]))
