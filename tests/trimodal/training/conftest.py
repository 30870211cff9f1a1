import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    DataConfig,
    LengthConfig,
    MaskedConfig,
    ObjectivesConfig,
    RunConfig,
    SpeechAugmentConfig,
    TargetConfig,
    TrainingConfig,
    VisionAugmentConfig,
)
from trimodal.testing import (
    tiny_model_config,
    tiny_tokenizer,
    tiny_tokenizers,
    write_tiny_manifest,
)
from trimodal.training.trainer import train


def small_run(folder: Path) -> RunConfig:
    """Of a few seconds on 24 rows, some of which lack modalities."""
    (folder / "text.model").write_bytes(tiny_tokenizer())
    manifest = write_tiny_manifest(folder / "data", rows=24)
    return RunConfig(
        run_dir=str(folder / "run"),
        data=DataConfig(
            train=(str(manifest),),
            tokenizer=str(folder / "text.model"),
            num_workers=0,
            vision_augment=VisionAugmentConfig(rotate_degrees=10, shift=0.1),
            speech_augment=SpeechAugmentConfig(stretch=0.2, warp=0.1, noise=0.5, time_mask=0.1),
        ),
        model=tiny_model_config(),
        objectives=ObjectivesConfig(contrastive=ContrastiveConfig(), masked=MaskedConfig()),
        training=TrainingConfig(
            max_steps=6,
            batch_size=8,
            warmup_steps=2,
            learning_rate=3e-3,
            checkpoint_every=2,
            trackers=(),
        ),
    )


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run that has not begun."""
    return small_run(tmp_path)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The same, of which no test changes the data."""
    return small_run(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="session")
def trained(kept: RunConfig) -> RunConfig:
    """The same run at its end, which no test changes either."""
    train(kept)
    return kept


@pytest.fixture
def finished(config: RunConfig, trained: RunConfig) -> RunConfig:
    """A copy of it that a test may change."""
    shutil.copytree(trained.run_dir, config.run_dir)
    return config


def with_everything(config: RunConfig) -> RunConfig:
    """The same with every pretext task; rows have questions, two languages and spoken ones."""
    manifest = Path(config.data.train[0])
    tokenizers = manifest.with_name("tokenizers")
    tiny_tokenizers().save(tokenizers)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(rows):
        row["speech_lang"] = ("en", "zh")[i % 2]
        if i % 3 == 0:
            row |= {"question": "is it red?", "answer": "yes" if row["label"] == "red" else "no"}
        if "text" in row and i % 4 == 0:
            row["text_zh" if row["lang"] == "en" else "text_en"] = "red"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return replace(
        config,
        data=replace(config.data, tokenizers=str(tokenizers)),
        objectives=ObjectivesConfig(
            contrastive=ContrastiveConfig(),
            masked=MaskedConfig(vision_target="codes", speech_target="codes", rate=0.8),
            target=TargetConfig(rate=0.8),
            causal=CausalConfig(rate=0.8),
            length=LengthConfig(),
        ),
    )


@pytest.fixture
def everything(config: RunConfig) -> RunConfig:
    """A run with every pretext task that has not begun."""
    return with_everything(config)


@pytest.fixture(scope="session")
def kept_everything(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The same, of which no test changes the data."""
    return with_everything(small_run(tmp_path_factory.mktemp("everything")))


@pytest.fixture
def sharding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Accelerator]:
    """Of a launch of one process that asks for FSDP2."""
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    place = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield Accelerator(cpu=True)
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
