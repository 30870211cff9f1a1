"""Augmentation: a pure function of its generator, sane in shape, the identity where it is off."""

import dataclasses

import numpy as np
import pytest
import torch

from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.processors.augmentation import augment_image, augment_speech
from trimodal.streams import generator
from trimodal.testing import assert_close

VISION = VisionAugmentConfig(rotate_degrees=15, scale=0.2, shear_degrees=8, shift=0.1, gamma=0.3)
SPEECH = SpeechAugmentConfig(
    stretch=0.2, warp=0.1, tilt=0.5, noise=0.5, shift=6, frequency_mask=4, time_mask=0.2
)


def _image(height: int = 12, width: int = 9) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def _frames(num_frames: int = 50, num_mels: int = 16) -> torch.Tensor:
    frames = torch.from_numpy(np.random.default_rng(0).normal(size=(num_frames, num_mels))).float()
    return (frames - frames.mean()) / frames.std()


def test_equal_generators_give_equal_pictures() -> None:
    draws = [augment_image(_image(), VISION, generator(0, "augment", 3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], augment_image(_image(), VISION, generator(0, "augment", 4)))


def test_equal_generators_give_equal_frames() -> None:
    draws = [augment_speech(_frames(), SPEECH, generator(0, "augment", 3)) for _ in range(2)]
    assert torch.equal(*draws)
    other = augment_speech(_frames(), SPEECH, generator(0, "augment", 4))
    assert other.shape != draws[0].shape or not torch.equal(other, draws[0])


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (12, 9), (3, 40)])
def test_a_picture_keeps_its_size_and_type(size: tuple[int, int]) -> None:
    for step in range(10):
        image = augment_image(_image(*size), VISION, generator(step))
        assert image.shape == (3, *size)
        assert image.dtype is torch.uint8


def test_new_corners_have_the_colour_of_the_old_one() -> None:
    image = torch.full((3, 16, 16), 77, dtype=torch.uint8)
    moves = dataclasses.replace(VISION, gamma=0.0)
    for step in range(5):
        assert augment_image(image, moves, generator(step)).unique().tolist() == [77]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 50, 400])
def test_speech_keeps_its_bands_and_about_its_length(num_frames: int) -> None:
    for step in range(20):
        frames = augment_speech(_frames(num_frames), SPEECH, generator(step))
        assert frames.shape[1] == 16
        assert num_frames / 1.2 / 2 - 2 <= len(frames) <= num_frames * 1.2 + 2 * 6 + 1
        assert bool(frames.isfinite().all())


def test_what_is_off_changes_nothing() -> None:
    assert_close(augment_image(_image(), VisionAugmentConfig(), generator(0)), _image(), "exact")
    assert_close(augment_speech(_frames(), SpeechAugmentConfig(), generator(0)), _frames(), "fp32")


@pytest.mark.parametrize("change", [field.name for field in dataclasses.fields(VISION)])
def test_each_change_of_pictures_changes_something(change: str) -> None:
    config = VisionAugmentConfig(**{change: getattr(VISION, change)})
    changed = [augment_image(_image(32, 32), config, generator(step)) for step in range(5)]
    assert any(not torch.equal(image, _image(32, 32)) for image in changed)


@pytest.mark.parametrize("change", [field.name for field in dataclasses.fields(SPEECH)])
def test_each_change_of_speech_changes_something(change: str) -> None:
    config = SpeechAugmentConfig(**{change: getattr(SPEECH, change)})
    for step in range(8):
        frames = augment_speech(_frames(), config, generator(step))
        if frames.shape != _frames().shape or not torch.allclose(frames, _frames(), atol=1e-4):
            return
    pytest.fail(f"{change} never changed the frames")


def test_masks_hide_whole_bands_and_whole_frames() -> None:
    config = SpeechAugmentConfig(frequency_mask=6, time_mask=0.5)
    hidden = [augment_speech(_frames(), config, generator(step)) == 0 for step in range(20)]
    assert max(int(mask.all(0).sum()) for mask in hidden) in range(3, 7)
    assert max(int(mask.all(1).sum()) for mask in hidden) in range(10, 26)


def test_gamma_keeps_black_and_white_and_the_order_of_greys() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    exponents = []
    for step in range(40):
        levels = augment_image(image, VisionAugmentConfig(gamma=0.5), generator(step))[0].flatten()
        assert levels[[0, 255]].tolist() == [0, 255]
        assert bool((levels.int().diff() >= 0).all())
        exponents.append(float(torch.log(levels[128] / 255) / np.log(128 / 255)))
    assert 0.58 < min(exponents) < 0.75, "thicker"
    assert 1.35 < max(exponents) < 1.7, "thinner"


def test_the_input_is_left_as_it_was() -> None:
    image, frames = _image(), _frames()
    for step in range(5):
        augment_image(image, VISION, generator(step))
        augment_speech(frames, SPEECH, generator(step))
    assert torch.equal(image, _image())
    assert torch.equal(frames, _frames())
