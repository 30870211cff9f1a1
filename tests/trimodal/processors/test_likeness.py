import numpy as np
import torch

from trimodal.processors.likeness import COPY, correlation, picture_likeness, speech_likeness
from trimodal.streams import generator
from trimodal.testing import assert_close


def test_correlation_by_hand() -> None:
    a = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    assert_close(correlation(a, a * 10), 1.0, "fp64")
    assert_close(correlation(a, 255 - a), -1.0, "fp64")
    assert_close(correlation(a, np.array([[1, 2], [4, 3]])), 0.8, "fp64")
    assert correlation(a, np.full((2, 2), 7)) == 0.0


def test_a_picture_is_compared_at_its_own_size_in_any_scale() -> None:
    given = torch.from_numpy(generator("picture").integers(0, 256, (3, 8, 12), dtype=np.uint8))
    twice = given.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert picture_likeness(given, twice) > COPY
    assert_close(picture_likeness(given.float() / 127.5 - 1, given), 1.0, "fp32")
    assert abs(picture_likeness(given, given.flip(2))) < 0.5


def test_speech_is_compared_as_far_as_the_shorter_goes() -> None:
    frames = torch.from_numpy(generator("speech").normal(size=(20, 8)))
    assert_close(speech_likeness(frames, frames[:13] * 2 + 1), 1.0, "fp64")
    assert abs(speech_likeness(frames, frames[7:])) < 0.5
