from pathlib import Path

import pytest

from trimodal.config import (
    ContrastiveConfig,
    DataConfig,
    MaskedConfig,
    ObjectivesConfig,
    RunConfig,
    SpeechAugmentConfig,
    TrainingConfig,
    VisionAugmentConfig,
)
from trimodal.testing import tiny_model_config, tiny_tokenizer, write_tiny_manifest


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run of a few seconds on 24 rows, some of which lack modalities."""
    (tmp_path / "text.model").write_bytes(tiny_tokenizer())
    manifest = write_tiny_manifest(tmp_path / "data", rows=24)
    return RunConfig(
        run_dir=str(tmp_path / "run"),
        data=DataConfig(
            train=(str(manifest),),
            tokenizer=str(tmp_path / "text.model"),
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
            tensorboard=False,
        ),
    )
