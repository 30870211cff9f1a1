from dataclasses import replace
from pathlib import Path

import pytest

from trimodal.data import Row, read_manifest
from trimodal.evaluation.resynthesis import format_resynthesis, resynthesis
from trimodal.testing import tiny_tokenizers, write_tiny_manifest
from trimodal.tokenizers import Tokenizers
from trimodal.tokenizers.config import VocoderConfig
from trimodal.tokenizers.vocoder import Vocoder
from trimodal.training.tokenizers.measurement import measure_vision, measure_vocoder


@pytest.fixture(scope="module")
def tokenizers() -> Tokenizers:
    made = tiny_tokenizers()
    assert made.speech is not None
    heard = made.speech.config.speech_input
    vocoder = Vocoder(VocoderConfig(speech_input=heard, width=8, depth=1)).eval()
    return replace(made, vocoder=vocoder)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder: Path = tmp_path_factory.mktemp("resynthesis")
    return read_manifest(write_tiny_manifest(folder, rows=6, name="test", complete=True))


def test_the_numbers_are_those_of_each_tokenizer_alone(
    tokenizers: Tokenizers, rows: list[Row]
) -> None:
    assert tokenizers.vision is not None
    assert tokenizers.speech is not None
    assert tokenizers.vocoder is not None
    found = resynthesis(tokenizers, rows)
    assert found["image"] == measure_vision(tokenizers.vision, rows)
    voiced = measure_vocoder(tokenizers.vocoder, tokenizers.speech, rows)
    assert voiced.items() <= found["speech"].items()
    assert set(found["speech"]) == {"error", "usage", "perplexity", "distortion", "griffin_lim"}


def test_what_is_not_there_is_left_out(tokenizers: Tokenizers, rows: list[Row]) -> None:
    deaf = [replace(row, speech=None) for row in rows]
    assert set(resynthesis(tokenizers, deaf)) == {"image"}
    assert set(resynthesis(replace(tokenizers, vision=None, vocoder=None), rows)) == {"speech"}
    assert set(resynthesis(replace(tokenizers, vocoder=None), rows)["speech"]) == {
        *("error", "usage", "perplexity")
    }
    assert resynthesis(Tokenizers(), rows) == {}


def test_a_table_has_the_columns_that_are_needed() -> None:
    image = {"psnr": 23.519, "usage": 0.9833, "perplexity": 180.94}
    assert format_resynthesis({"image": image}).splitlines() == [
        "codes and back  PSNR (dB)  codes used  perplexity",
        "image               23.52        98.3       180.9",
    ]
    speech = {"error": 0.2558, "usage": 1.0, "perplexity": 9, "distortion": 4.7, "griffin_lim": 5}
    table = format_resynthesis({"image": image, "speech": speech}).splitlines()
    assert table[0].split("  ")[-1] == "perplexity"
    assert table[2].split() == ["speech", "0.26", "4.70", "5.00", "100.0", "9.0"]
    assert format_resynthesis({}) == ""
