from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trimodal.config import RunConfig, SpeechInputConfig, TransformerConfig
from trimodal.errors import ConfigError, StorageError
from trimodal.models import TrimodalModel
from trimodal.processors.text import train_tokenizer
from trimodal.testing import tiny_model, tiny_tokenizers
from trimodal.training.building import build_processor, new_model
from trimodal.training.components import depths, place


@pytest.fixture
def trained(tmp_path: Path) -> str:
    folder = tmp_path / "trained"
    tiny_model().save_pretrained(folder)
    return str(folder)


def starting(config: RunConfig, folder: str, *components: str, **model: Any) -> TrimodalModel:
    torch.manual_seed(5)
    start: Any = dict.fromkeys(components, folder)
    config = replace(
        config,
        model=replace(config.model, **model),
        training=replace(config.training, start_from=start),
    )
    return new_model(config, build_processor(config))


@pytest.mark.parametrize("components", [("vision",), ("text", "speech"), ("trunk", "heads")])
def test_only_the_named_components_are_taken(
    config: RunConfig, trained: str, components: tuple[str, ...]
) -> None:
    model, source = starting(config, trained, *components), tiny_model().state_dict()
    blocks = depths(model)
    fresh = starting(config, trained).state_dict()
    for name, weight in model.state_dict().items():
        taken = place(name, blocks).component in components
        assert torch.equal(weight, source[name] if taken else fresh[name]), name


def test_a_tower_fits_another_trunk(config: RunConfig, trained: str) -> None:
    trunk = TransformerConfig(width=64, depth=3, num_heads=2)
    model = starting(config, trained, "vision", "speech", trunk=trunk)
    source = tiny_model().state_dict()
    name = "encoders.0.transformer.blocks.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], source[name])
    assert list(model.encoders[0].get_parameter("to_trunk.weight").shape) == [64, 32]


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        (
            "vision",
            {"vision": TransformerConfig(width=32, depth=2, num_heads=2)},
            r"trained has another architecture: vision\.depth was 1, is 2",
        ),
        (
            "vision",
            {"vision": TransformerConfig(width=32, depth=1, num_heads=4)},
            r"vision\.num_heads was 2, is 4",
        ),
        (
            "speech",
            {"speech_input": SpeechInputConfig(num_mels=16, hop_ms=12.5)},
            r"speech_input\.hop_ms was 10\.0, is 12\.5",
        ),
        ("text", {"embedding_dim": 24}, r"embedding_dim was 16, is 24"),
        (
            "text",
            {"trunk": TransformerConfig(width=64, depth=2, num_heads=2)},
            r"encoders\.1\.frontend\.table\.weight is \[\d+, 32\], here it is \[\d+, 64\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    config: RunConfig, trained: str, component: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"training\.start_from\.{component}: .*{message}"):
        starting(config, trained, component, **change)


def test_limits_and_dropout_may_differ(config: RunConfig, trained: str) -> None:
    speech = replace(config.model.speech_input, max_seconds=9.0)
    stack = replace(config.model.speech, dropout=0.1)
    starting(config, trained, "speech", speech_input=speech, speech=stack)


def test_text_needs_the_same_pieces(config: RunConfig, trained: str, tmp_path: Path) -> None:
    other = tmp_path / "other.model"
    train_tokenizer(["quite another corpus", "完全不同"], other, vocab_size=300)
    config = replace(config, data=replace(config.data, tokenizer=str(other)))
    starting(config, trained, "vision")
    with pytest.raises(ConfigError, match=r"text: .*trained has another tokenizer than data"):
        starting(config, trained, "text")


def test_text_needs_the_same_codes(everything: RunConfig, trained: str, tmp_path: Path) -> None:
    starting(everything, trained, "text")
    others = tiny_tokenizers()
    assert others.vision is not None
    with torch.no_grad():
        next(iter(others.vision.parameters())).add_(1)
    others.save(tmp_path / "others")
    config = replace(everything, data=replace(everything.data, tokenizers=str(tmp_path / "others")))
    with pytest.raises(ConfigError, match=r"text: .* has another vision.* than data\.tokenizers"):
        starting(config, trained, "text")


def test_a_folder_that_is_no_model_is_named(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere is not a model folder"):
        starting(config, str(tmp_path / "nowhere"), "vision")
