import io
import wave
from typing import Any

import numpy as np
import pytest
import soundfile

from trimodal_serving.errors import ServingError
from trimodal_serving.sounds import FORMATS, beginning, check_format, check_voice, encode

TONE = (0.5 * np.sin(np.arange(8_000) * 0.1)).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pcm"])
def test_files_say_what_they_hold(name: str) -> None:
    data, media_type = encode(TONE, 16_000, name)
    file = soundfile.SoundFile(io.BytesIO(data))
    assert (file.format, file.samplerate, file.channels) == (FORMATS[name].container, 16_000, 1)
    assert media_type == FORMATS[name].media_type
    heard = file.read(dtype="float32")
    assert abs(np.abs(heard[2000:6000]).max() - 0.5) < 0.05


def test_pcm_is_sixteen_bits_and_says_its_rate() -> None:
    data, media_type = encode(TONE, 16_000, "pcm")
    expected, _ = soundfile.read(io.BytesIO(encode(TONE, 16_000, "wav")[0]), dtype="int16")
    assert np.array_equal(np.frombuffer(data, "<i2"), expected)
    assert media_type == "audio/pcm;rate=16000;channels=1"


def test_a_file_that_grew_is_read_to_its_end() -> None:
    pieces = [encode(piece, 16_000, "pcm")[0] for piece in np.split(TONE, [1, 700, 5000])]
    assert b"".join(pieces) == encode(TONE, 16_000, "pcm")[0]
    assert beginning(16_000, "pcm") == b""
    grown = beginning(16_000, "wav") + b"".join(pieces)
    whole, _ = encode(TONE, 16_000, "wav")
    assert len(grown) == len(whole)
    expected, _ = soundfile.read(io.BytesIO(whole), dtype="int16")
    found, rate = soundfile.read(io.BytesIO(grown), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(found, expected)
    with wave.open(io.BytesIO(grown)) as file:
        assert file.getparams()[:3] == (1, 2, 16_000)
        assert file.readframes(2**20) == b"".join(pieces)


def test_formats_and_voices_that_there_are_not() -> None:
    assert check_format("pcm16", {"pcm16": "pcm"}, "audio.format") == "pcm"
    names: list[Any] = ["aac", 1, ["mp3"]]
    for name in names:
        with pytest.raises(ServingError, match="one of mp3") as caught:
            check_format(name, {"mp3": "mp3"}, "response_format")
        assert (caught.value.code, caught.value.param) == ("unsupported_format", "response_format")
    check_voice("default", "voice")
    check_voice({"id": "default"}, "voice")
    for voice in ("alloy", 1, {"id": "alloy"}):
        with pytest.raises(ServingError, match="`default`") as caught:
            check_voice(voice, "voice")
        assert (caught.value.code, caught.value.param) == ("unsupported_voice", "voice")
