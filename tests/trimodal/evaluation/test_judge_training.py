import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trimodal.data import read_manifest
from trimodal.errors import ConfigError, DataError
from trimodal.evaluation.judge_training import (
    blurred,
    labelled_media,
    measure_judges,
    train_judges,
    worn,
)
from trimodal.evaluation.judges import Judges, fingerprint
from trimodal.streams import generator
from trimodal.testing import assert_close, write_tiny_manifest

COLOURS = ["blue", "green", "red", "white"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows of four colours, some without a picture or without speech."""
    return write_tiny_manifest(tmp_path_factory.mktemp("train"), rows=40)


def _weights(judges: Judges) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in judges.models.state_dict().values()])


def test_judges_learn_what_they_are_shown(manifest: Path, tmp_path: Path) -> None:
    judges = train_judges(manifest, steps=30)
    assert list(judges.labels) == COLOURS
    assert judges.config.inputs == ("image", "speech")
    assert judges.config.manifest == fingerprint(manifest)
    scores = measure_judges(judges, write_tiny_manifest(tmp_path, rows=32, name="test"))
    assert scores["image"]["accuracy"] > 0.9
    assert scores["speech"]["accuracy"] > 0.9
    assert not any(module.training for module in judges.models.modules())


def test_training_is_a_function_of_the_seed(manifest: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (train_judges(manifest, steps=1, seed=seed) for seed in (3, 3, 4))
    assert_close(_weights(first), _weights(again), "exact")
    assert not torch.equal(_weights(first), _weights(other))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_judge_of_each_modality_that_has_labels(tmp_path: Path) -> None:
    path = write_tiny_manifest(tmp_path, rows=8, complete=True)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["speech"]
    del rows[0]["label"]
    path.write_text("\n".join(map(json.dumps, rows)))
    judges = train_judges(path, steps=1)
    assert judges.config.inputs == ("image",)
    assert measure_judges(judges, path)["image"]["samples"] == 7


def test_a_file_counts_once_and_has_one_label(tmp_path: Path) -> None:
    path = write_tiny_manifest(tmp_path, rows=4, complete=True)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[1] |= {"image": rows[0]["image"], "label": "red"}
    path.write_text("\n".join(map(json.dumps, rows)))
    files = labelled_media(read_manifest(path), "image", COLOURS)
    assert [(file.path.name, file.label) for file in files] == [
        ("train-0.png", "red"),
        ("train-2.png", "blue"),
        ("train-3.png", "white"),
    ]
    assert [file.path.name for file in labelled_media(read_manifest(path), "image", ["blue"])] == [
        "train-2.png"
    ]
    rows[1]["label"] = "white"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=rf"^{path}:2: .*train-0.png has the label 'white', and"):
        labelled_media(read_manifest(path), "image", COLOURS)


def test_too_little_to_learn_from_is_refused(manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "text": "a", "label": "a"}\n{"id": "b", "text": "b"}\n')
    with pytest.raises(DataError, match="has 1 labels, judges need two at least"):
        train_judges(path)
    path.write_text('{"id": "a", "text": "a", "label": "a"}\n{"id": "b", "text": "b", "label":"b"}')
    with pytest.raises(DataError, match="has neither pictures nor speech of two labels"):
        train_judges(path)
    judges = train_judges(manifest, steps=1)
    with pytest.raises(DataError, match="has no media of a label that these judges know"):
        measure_judges(judges, path)
    with pytest.raises(ConfigError, match="steps: must be at least 1"):
        train_judges(manifest, steps=0)
    with pytest.raises(ConfigError, match="seed: must be from 0"):
        train_judges(manifest, seed=-1)


@pytest.mark.parametrize("size", [1, 300, 8_000])
def test_a_worn_copy_is_as_long_and_about_as_loud(size: int) -> None:
    waveform = torch.from_numpy(generator("wave", size).normal(0, 0.1, size)).float()
    copy = worn(waveform, generator("worn"))
    assert copy.shape == (size,)
    assert torch.isfinite(copy).all()
    if size == 8_000:
        assert 0.3 < copy.std() / waveform.std() < 1.1
        assert abs(np.corrcoef(copy, waveform)[0, 1]) < 0.5
    assert torch.equal(copy, worn(waveform, generator("worn")))


def test_a_worn_copy_lacks_the_highest_bands_and_keeps_the_pitch() -> None:
    times = torch.arange(16_000) / 16_000
    tones = torch.sin(2 * torch.pi * 500 * times) + torch.sin(2 * torch.pi * 7_900 * times)
    power = torch.fft.rfft(worn(tones, generator("worn", 1))).abs().square()
    assert int(power.argmax()) in range(470, 530)
    assert power[7_800:].sum() < 0.2 * power[400:600].sum()


def test_blurring_averages_neighbours() -> None:
    plane = torch.zeros(1, 3, 4)
    plane[0, 0, 0] = 36.0
    expected = [[9.0, 6.0, 0.0, 0.0], [6.0, 4.0, 0.0, 0.0], [0.0] * 4]
    assert_close(blurred(plane)[0], expected, "fp32")
