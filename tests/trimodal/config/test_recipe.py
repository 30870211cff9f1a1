from typing import Any

import pytest

from trimodal.config import TrainingConfig
from trimodal.errors import ConfigError
from trimodal.schema import parse, to_dict


def parsed(**values: Any) -> TrainingConfig:
    return parse(TrainingConfig, values, "training")


def test_a_recipe_reads_as_it_is_written() -> None:
    config = parsed(
        ema={"decay": 0.99},
        learning_rate_scale={"vision": 0.1},
        layer_decay={"vision": 0.75, "trunk": 0.9},
        start_from={"vision": "runs/a/model"},
        frozen=["vision"],
        unlocked={"vision": 2},
    )
    assert config.ema is not None
    assert config.ema.decay == 0.99
    assert config.frozen == ("vision",)
    assert parse(TrainingConfig, to_dict(config), "training") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema": {"decay": 1.0}}, r"training\.ema: decay: 1 would never leave the weights"),
        ({"ema": {"decay": 1.5}}, r"training\.ema\.decay: 1\.5 is not in \[0, 1\]"),
        ({"layer_decay": {"visoin": 0.7}}, "layer_decay.visoin: no such key, did you mean vision"),
        ({"layer_decay": {"vision": 0.0}}, r"layer_decay\.vision: must be above 0"),
        ({"learning_rate_scale": {"text": 0}}, r"learning_rate_scale\.text: must be above 0"),
        ({"frozen": ["image"]}, r"training\.frozen\[0\]: 'image' is not one of vision, text"),
        ({"frozen": ["vision"]}, "frozen: vision would stay as random as it begins; name a model"),
        (
            {"frozen": ["vision", "text"], "start_from": {"vision": "a"}},
            "frozen: text would stay as random",
        ),
        (
            {"unlocked": {"vision": 1}, "init_from": "a"},
            r"training\.unlocked: vision is not frozen",
        ),
        (
            {"start_from": {"vision": "a"}, "init_from": "b"},
            r"training\.start_from: init_from names a whole model already",
        ),
    ],
)
def test_what_contradicts_itself_is_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(**values)
    assert "\n" not in str(caught.value)


def test_a_whole_model_may_be_frozen_in_part() -> None:
    assert parsed(frozen=["text", "heads"], init_from="a").frozen == ("text", "heads")
