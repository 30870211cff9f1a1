import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest

from trimodal.data import espeak
from trimodal.data.espeak import ACCENTS, SPEAKERS, Espeak, Utterance, Voice, engine
from trimodal.errors import DataError
from trimodal.streams import digest

TEXTS = {
    "en": ("zero", "three", "six", "an orange star above a blue square", "what colour is it?"),
    "zh": ("零", "二", "九", "一个红色的圆形在一个蓝色的正方形的上面"),
}


def utterances(speakers: Iterable[int]) -> list[Utterance]:
    return [
        Utterance(text, lang, Voice.draw(0, "train", i), 0.8 + 0.1 * (i % 5), 35 + i, 70 - i)
        for i in speakers
        for lang, texts in TEXTS.items()
        for text in texts
    ]


def fingerprint(samples: np.ndarray) -> int:
    return digest(samples.tobytes().hex())


def test_speech_does_not_depend_on_what_was_said_before() -> None:
    said = utterances(range(12))
    first = [fingerprint(engine().say(utterance)) for utterance in said]
    order = np.random.default_rng(0).permutation(len(said))
    again = {i: fingerprint(engine().say(said[i])) for i in order}
    assert [again[i] for i in range(len(said))] == first
    assert len(set(first)) == len(said)


def test_speech_is_the_same_in_another_process_and_from_a_long_path() -> None:
    code = (
        "from trimodal.data import espeak\n"
        "from trimodal.streams import digest\n"
        "espeak.LONGEST_PATH = 10\n"  # so the data is reached by a link
        "voice = espeak.Voice.draw(0, 'train', 1)\n"
        "for text, lang in (('九', 'zh'), ('three', 'en')):\n"
        "    samples = espeak.engine().say(espeak.Utterance(text, lang, voice))\n"
        "    print(digest(samples.tobytes().hex()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    voice = Voice.draw(0, "train", 1)
    here = [
        fingerprint(engine().say(Utterance(text, lang, voice)))
        for text, lang in (("three", "en"), ("九", "zh"))
    ]
    assert [int(line) for line in result.stdout.split()] == here[::-1]


def test_speech_has_sound_at_one_level_and_little_silence_at_its_ends() -> None:
    for utterance in utterances([3]):
        samples = engine().say(utterance)
        assert samples.dtype == np.int16
        assert np.abs(samples).max() == espeak.PEAK
        audible = np.flatnonzero(np.abs(samples) > espeak.AUDIBLE)
        assert audible[0] <= espeak.MARGIN
        assert len(samples) - audible[-1] <= espeak.MARGIN
        assert 0.1 < len(samples) / espeak.SAMPLE_RATE < 8


def test_tempo_and_pitch_change_what_is_heard() -> None:
    voice = Voice.draw(0, "train", 0)
    slow, fast = (engine().say(Utterance("seven", "en", voice, tempo)) for tempo in (0.8, 1.3))
    assert len(slow) > 1.2 * len(fast)
    low, high = (engine().say(Utterance("seven", "en", voice, pitch=p)) for p in (10, 90))
    assert _fundamental(high) > 1.1 * _fundamental(low)


def test_no_voice_overloads_the_engine() -> None:
    # an overload would turn on the gain control, which carries over to the next utterance
    for split, count in SPEAKERS.items():
        for number in range(count):
            voice = Voice.draw(0, split, number)
            engine().say(Utterance("a black star above a white square", "en", voice))


def test_an_overload_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "OVERLOAD", 100)
    with pytest.raises(DataError, match=r"^voice train-000 is too loud for the engine$"):
        engine().say(Utterance("seven", "en", Voice.draw(0, "train", 0)))


@pytest.mark.parametrize("text", ["", " ", "。"])
def test_a_text_without_sound_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=f"^{text!r} cannot be spoken in en$"):
        engine().say(Utterance(text, "en", Voice.draw(0, "train", 0)))


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match=r"pip install 'trimodal\[demo\]'"):
        Espeak()


def test_voices_are_pure_functions_and_differ() -> None:
    voices = [Voice.draw(0, split, i) for split, count in SPEAKERS.items() for i in range(count)]
    again = [Voice.draw(0, split, i) for split, count in SPEAKERS.items() for i in range(count)]
    assert voices == again
    assert len({dataclasses.replace(voice, name="") for voice in voices}) == len(voices)
    assert len({voice.name for voice in voices}) == len(voices)
    assert Voice.draw(1, "train", 0) != voices[0]
    assert {voice.accent for voice in voices} == set(range(len(ACCENTS["en"])))


def test_a_voice_file_turns_off_what_outlasts_an_utterance() -> None:
    lines = Voice.draw(0, "train", 0).definition().splitlines()
    assert {"flutter 0", "roughness 0"} <= set(lines)
    assert not any(line.startswith("echo") for line in lines)


def _fundamental(samples: np.ndarray) -> float:
    """Hz, by the highest peak of the autocorrelation between 60 and 400 Hz."""
    middle = samples[len(samples) // 4 : 3 * len(samples) // 4].astype(np.float64)
    correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    least, most = espeak.SAMPLE_RATE // 400, espeak.SAMPLE_RATE // 60
    return espeak.SAMPLE_RATE / (least + int(correlation[least:most].argmax()))
