import os
from dataclasses import replace

import pytest
import torch

from trimodal.assembly import assemble
from trimodal.batch import Medium, Modality, Sample
from trimodal.config import VisionInputConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.schema import to_dict
from trimodal.testing import assert_close, tiny_model_config
from trimodal.training.throughput import computing_threads, peak_flops, training_flops


def test_flops_of_a_text_by_hand() -> None:
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(tiny_model_config())))
    ids = torch.full((5,), 70)
    batch = assemble(
        [Sample("a", {Modality.TEXT: Medium(Modality.TEXT, ids, 5, (5, 1))}, 0)], summaries=True
    )
    width, hidden = 32, 88
    block = 4 * width**2 + 3 * width * hidden
    frontend = width**2
    expected = 6 * 5 * (block + frontend) + 12 * width * 25
    assert_close(training_flops(model, [batch]), expected, "exact")
    assert_close(training_flops(model, [batch, batch]), 2 * expected, "exact")


def test_flops_of_speech_by_hand() -> None:
    """The first convolution halves the frames, so it has two rows a token."""
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(tiny_model_config())))
    speech = Medium(Modality.SPEECH, torch.zeros(4 * 7, 16), 7, (7, 1))
    batch = assemble([Sample("a", {Modality.SPEECH: speech}, 0)], summaries=True)
    width, hidden = 32, 88
    block = 4 * width**2 + 3 * width * hidden
    frontend = 2 * (4 * 16 * width) + 4 * width**2 + width**2
    expected = 6 * 7 * (block + frontend) + 12 * width * 7**2
    assert_close(training_flops(model, [batch]), expected, "exact")


def test_flops_of_a_convolved_picture_by_hand() -> None:
    config = replace(
        tiny_model_config(),
        vision_stem="convolutional",
        vision_input=VisionInputConfig(patch_size=4),
    )
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(config)))
    picture = Medium(Modality.VISION, torch.zeros(6, 48), 6, (2, 3))
    batch = assemble([Sample("a", {Modality.VISION: picture}, 0)], summaries=True)
    linear = TrimodalModel(
        TrimodalConfig(architecture=to_dict(replace(config, vision_stem="linear")))
    )
    width = config.vision.width
    stem = 4 * (6 * 24 * 16) + 24 * width * 16 + width**2 + 2 * width
    expected = training_flops(linear, [batch]) + 6 * 6 * (stem - 48 * width)
    assert_close(training_flops(model, [batch]), expected, "exact")


def test_the_peak_is_measured_where_it_is_not_known() -> None:
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert peak > 1e8
    assert peak_flops(torch.device("cpu"), torch.float32) == peak, "once"


@pytest.mark.parametrize(
    ("cores", "processes", "loaders", "threads"),
    [(8, 1, 1, 7), (8, 2, 1, 3), (8, 1, 20, 1), (1, 1, 0, 1), (64, 1, 0, 9)],
)
def test_loaders_keep_their_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, loaders: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert computing_threads(loaders) == threads
