import pytest

from trimodal.errors import ConfigError
from trimodal.schema import parse
from trimodal.tokenizers import SpeechTokenizerConfig, VisionTokenizerConfig, VocoderConfig


def test_codes_and_strides_are_products() -> None:
    config = VisionTokenizerConfig(levels=(8, 6, 5), strides=(2, 7))
    assert (config.num_codes, config.stride) == (240, 14)
    speech = SpeechTokenizerConfig(levels=(3,), strides=(2, 2, 2))
    assert (speech.num_codes, speech.stride) == (3, 8)


@pytest.mark.parametrize(
    ("config", "tree", "message"),
    [
        (VisionTokenizerConfig, {"levels": []}, "levels: names no level"),
        (VisionTokenizerConfig, {"levels": [8, 1]}, r"levels\[1\]: 1 is not in \[2, 1024\]"),
        (VisionTokenizerConfig, {"levels": [1024, 1024, 2]}, "levels: 2097152 codes are more"),
        (VisionTokenizerConfig, {"stride": [2]}, "stride: no such key, did you mean strides?"),
        (VisionTokenizerConfig, {"strides": []}, "strides: needs 1 to 16"),
        (SpeechTokenizerConfig, {"kernel": 4}, "kernel: must be odd, got 4"),
        (SpeechTokenizerConfig, {"std": 0}, "std: must be above 0"),
        (SpeechTokenizerConfig, {"levels": [8, 1]}, r"levels\[1\]"),
        (VocoderConfig, {"kernel": 6}, "kernel: must be odd, got 6"),
        (VocoderConfig, {"width": 10**9}, "width: "),
    ],
)
def test_what_cannot_be_built_is_refused(
    config: type[object], tree: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(config, tree, "")
