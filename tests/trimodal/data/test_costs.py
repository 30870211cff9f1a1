from pathlib import Path
from typing import Any

import pytest

from trimodal.data import Row
from trimodal.data.costs import estimated_tokens
from trimodal.processors import TrimodalProcessor
from trimodal.storage import ShardFile
from trimodal.testing import tiny_model_config, tiny_tokenizer


@pytest.fixture(scope="module")
def processor() -> TrimodalProcessor:
    return TrimodalProcessor(tiny_model_config(), tiny_tokenizer())


def part(size: int) -> ShardFile:
    return ShardFile("shard-00000.tar", 512, size, "0" * 64)


def test_media_add_up(processor: TrimodalProcessor) -> None:
    picture, speech = Row(id="a", image=Path("a.png")), Row(id="a", speech=Path("a.wav"))
    text = Row(id="a", texts={"en": "a red square"})
    both = Row(id="a", image=Path("a.png"), texts=text.texts, speech=Path("a.wav"))
    costs = [estimated_tokens(row, processor) for row in (picture, text, speech)]
    assert min(costs) > 0
    assert estimated_tokens(both, processor) == pytest.approx(sum(costs))


def test_a_stated_size_gives_the_tokens_of_the_processor(processor: TrimodalProcessor) -> None:
    row = Row(id="a", image=part(9), metadata={"height": 20, "width": 12})
    assert estimated_tokens(row, processor) == 5 * 3
    spoken = Row(id="a", speech=part(9), metadata={"seconds": 1.5})
    speech = processor.speech.config
    assert estimated_tokens(spoken, processor) == 1500 / speech.hop_ms / speech.stride


def test_stored_codes_are_counted(processor: TrimodalProcessor) -> None:
    codes = {"tokenizer": "x", "grid": [2, 3], "ids": [0] * 6}
    row = Row(id="a", image=Path("a.png"), metadata={"image_codes": codes})
    assert estimated_tokens(row, processor) == 6


def test_more_bytes_are_more_tokens_up_to_the_limit(processor: TrimodalProcessor) -> None:
    pictures = [estimated_tokens(Row(id="a", image=part(n)), processor) for n in (1, 80, 10**9)]
    assert pictures == [1, 10, processor.vision.config.max_tokens]
    spoken = [
        estimated_tokens(Row(id="a", speech=part(n)), processor) for n in (8_000, 16_000, 10**9)
    ]
    assert spoken == [12.5, 25, 100]


def test_a_text_counts_in_either_language(processor: TrimodalProcessor) -> None:
    english, chinese = "a red square of paper", "一个红色的方块"
    costs = [
        estimated_tokens(Row(id="a", texts=texts), processor)
        for texts in ({"en": english}, {"zh": chinese}, {"en": english, "zh": chinese})
    ]
    assert costs[2] == pytest.approx((costs[0] + costs[1]) / 2)
    assert costs[0] == pytest.approx(costs[1])
    long = Row(id="a", texts={"en": "red " * 1000})
    assert estimated_tokens(long, processor) == processor.config.max_text_tokens


@pytest.mark.parametrize("nonsense", [True, "12", -3, 0, None, [4], float("inf")])
def test_nonsense_in_metadata_is_not_believed(processor: TrimodalProcessor, nonsense: Any) -> None:
    names = ("height", "width", "seconds", "image_codes")
    metadata: dict[str, Any] = dict.fromkeys(names, nonsense)
    row = Row(id="a", image=part(80), speech=part(16_000), metadata=metadata)
    assert estimated_tokens(row, processor) == 10 + 25
