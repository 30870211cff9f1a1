import pytest

from trimodal.config import ModelConfig, SpeechInputConfig, TransformerConfig
from trimodal.errors import ConfigError


def test_every_length_of_an_embedding_in_rising_order() -> None:
    assert ModelConfig(embedding_dim=64, matryoshka=(32, 8)).dimensions == (8, 32, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30, "num_heads": 4}, "width 30 is not a multiple of num_heads 4"),
        ({"width": 24, "num_heads": 4}, "head size 6 is not a multiple of 4"),
    ],
)
def test_heads_have_to_fit(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformerConfig(**settings)


def test_frames_are_halved_twice() -> None:
    with pytest.raises(ConfigError, match="must be 4"):
        SpeechInputConfig(stride=2)
