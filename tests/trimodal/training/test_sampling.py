import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.config import RunConfig
from trimodal.data import read_manifest
from trimodal.errors import ConfigError, StorageError
from trimodal.testing import write_tiny_manifest
from trimodal.training.building import build_processor, new_model
from trimodal.training.sampling import write_samples
from trimodal.training.trainer import train


def watched(config: RunConfig, tmp_path: Path, every: int) -> RunConfig:
    manifest = write_tiny_manifest(tmp_path / "val", name="val", rows=8)
    return replace(
        config,
        data=replace(config.data, validation=str(manifest)),
        training=replace(config.training, sample_every=every, trackers=("tensorboard",)),
    )


def test_every_output_is_a_file_that_can_be_opened(everything: RunConfig, tmp_path: Path) -> None:
    model = new_model(everything, build_processor(everything)).train()
    rows = read_manifest(write_tiny_manifest(tmp_path / "val", name="val", rows=6))
    made = write_samples(model, rows[2:6], tmp_path / "out")
    assert model.training
    expected = {
        f"{i}-{source}-{to}"
        for i, row in enumerate(rows[2:6])
        for source in row.data_names
        for to in ("image", "text", "speech")
        if source != to
    }
    assert {one.name for one in made} == expected
    for path in (tmp_path / "out").iterdir():
        if path.suffix == ".png":
            assert Image.open(path).mode == "RGB"
        elif path.suffix == ".wav":
            assert soundfile.read(io.BytesIO(path.read_bytes()))[1] == model.sample_rate
        else:
            path.read_text(encoding="utf-8")
    assert {path.stem for path in (tmp_path / "out").iterdir()} == expected


def test_the_same_model_makes_the_same(everything: RunConfig, tmp_path: Path) -> None:
    model = new_model(everything, build_processor(everything))
    rows = read_manifest(write_tiny_manifest(tmp_path / "val", name="val", rows=2))
    a, b = (write_samples(model, rows, tmp_path / name) for name in "ab")
    assert [one.name for one in a] == [one.name for one in b]
    assert all(np.array_equal(x.output, y.output) for x, y in zip(a, b, strict=True))


def test_a_run_is_sampled_as_configured_and_learns_the_same(
    everything: RunConfig, tmp_path: Path
) -> None:
    train(everything)
    config = replace(watched(everything, tmp_path, 4), run_dir=str(tmp_path / "watched"))
    train(config)
    run = Path(config.run_dir)
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ], "every fourth step and the last"
    events = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    for name in (b"samples/0-image-text", b"samples/0-text-image", b"samples/0-text-speech"):
        assert name in events
    plain, sampled = (
        [json.loads(line)["trace"] for line in (Path(c.run_dir) / "metrics.jsonl").open()]
        for c in (everything, config)
    )
    assert sampled == plain


def test_rows_to_sample_are_needed(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"training\.sample_every: needs data\.validation"):
        replace(config, training=replace(config.training, sample_every=4))


def test_a_place_that_takes_no_files_is_named(everything: RunConfig, tmp_path: Path) -> None:
    model = new_model(everything, build_processor(everything))
    rows = read_manifest(write_tiny_manifest(tmp_path / "val", name="val", rows=1))
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="out cannot be written"):
        write_samples(model, rows, tmp_path / "out")
