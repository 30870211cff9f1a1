import dataclasses
from pathlib import Path

import torch

from trimodal.config import VisionAugmentConfig
from trimodal.data import read_manifest
from trimodal.testing import assert_close
from trimodal.training.tokenizers.config import VisionTokenizerTraining
from trimodal.training.tokenizers.vision import VisionTask


def test_pictures_of_equal_size_share_a_batch_and_the_shares_are_whole(
    manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    schedule = dataclasses.replace(vision_config.training, batch_size=10)
    config = dataclasses.replace(vision_config, training=schedule, crop=12)
    task = VisionTask(config, read_manifest(manifest))
    outcomes = list(task.outcomes(0))
    shapes = [outcome.real.shape[1:] for outcome in outcomes]
    assert len(set(shapes)) == len(shapes) > 1
    assert all(side % 4 == 0 and side <= 12 for shape in shapes for side in shape[1:])
    assert sum(outcome.share for outcome in outcomes) == 1
    assert sum(len(outcome.real) for outcome in outcomes) == 10
    for outcome in outcomes:
        assert outcome.fake.shape == outcome.real.shape
        assert outcome.real.abs().max() <= 1
        assert outcome.codes is not None
        assert outcome.codes.max() < task.num_codes == 60


def test_pixels_are_those_of_the_processor_and_of_the_keys(
    manifest: Path, vision_config: VisionTokenizerTraining
) -> None:
    rows = read_manifest(manifest)
    whole = VisionTask(dataclasses.replace(vision_config, crop=64), rows)
    pixels = whole.pixels(0, 0)
    processor = whole.processor
    medium = processor.medium(processor.decode(whole.files.files[0][0]))
    again = torch.from_numpy(processor.picture(medium.features, medium.grid))
    assert_close((pixels.permute(1, 2, 0) + 1) * 127.5, again, "fp32")
    augment = VisionAugmentConfig(rotate_degrees=20, shift=0.2)
    task = VisionTask(dataclasses.replace(vision_config, augment=augment), rows)
    assert torch.equal(task.pixels(3, 0), task.pixels(3, 0))
    assert not torch.equal(task.pixels(3, 0), task.pixels(4, 0))
