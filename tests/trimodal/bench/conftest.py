"""Benchmarks at sizes that a CPU goes through in moments; compiled programs run as they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trimodal.config import (
    CausalConfig,
    ContrastiveConfig,
    DataConfig,
    LengthConfig,
    MaskedConfig,
    MatchingConfig,
    ModelConfig,
    ObjectivesConfig,
    RunConfig,
    SpeechInputConfig,
    TargetConfig,
    TrainingConfig,
    TransformerConfig,
    VisionInputConfig,
    VocabularyConfig,
)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile` gives back what it is given: inductor takes half a minute for a program."""

    def as_it_is(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", as_it_is)


@pytest.fixture
def config() -> RunConfig:
    """Every objective on the smallest model."""
    stack = TransformerConfig(width=32, depth=1, num_heads=2)
    model = ModelConfig(
        vision=stack,
        text=stack,
        speech=stack,
        trunk=stack,
        vision_input=VisionInputConfig(patch_size=2),
        speech_input=SpeechInputConfig(num_mels=8),
        vocabulary=VocabularyConfig(text=96, vision=64, speech=64),
        embedding_dim=32,
    )
    objectives = ObjectivesConfig(
        contrastive=ContrastiveConfig(),
        masked=MaskedConfig(rate=0.3),
        target=TargetConfig(),
        causal=CausalConfig(rate=1.2),
        length=LengthConfig(),
        matching=MatchingConfig(),
    )
    return RunConfig(
        run_dir="unused",
        data=DataConfig(train=("unused",), tokenizer="unused", tokenizers="unused"),
        model=model,
        objectives=objectives,
        training=TrainingConfig(batch_size=4, token_budget=4000),
    )
