"""Deterministic synthetic speech of any number of speakers, English and Mandarin, offline.

samples = engine().say(Utterance("seven", "en", Voice.draw(0, "train", 3)))
"""

import atexit
import ctypes
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimodal.errors import DataError, StorageError
from trimodal.streams import digest, generator

SAMPLE_RATE = 22_050
LONGEST_PATH = 120  # the engine keeps paths in buffers of 160 bytes and appends file names
ACCENTS = {
    # not en-GB-scotland: its trilled r counts cycles on from one utterance to the next
    "en": ("gmw/en-US", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-029"),
    "zh": ("sit/cmn",),
}
SPEAKERS = {"train": 48, "val": 8, "test": 12}  # of the built corpora; none is in two splits
NUM_FORMANTS = 9
VOLUME = 20  # louder ones overload, and the gain control that then acts outlasts the utterance
OVERLOAD = 32_000
PEAK = 23_000  # of the samples that are returned
AUDIBLE, MARGIN = 64, 441  # 16-bit amplitude, and samples (20 ms) kept on either side of it

_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker: what a voice file of the engine says of it."""

    name: str
    pitch: tuple[int, int]
    """Lowest and highest fundamental frequency, Hz."""
    formants: tuple[tuple[int, int, int], ...]
    """Frequency, height and width of each formant, per cent of the engine's."""
    tone: tuple[int, int]
    """Loudness at 600 Hz and at 2 kHz, of at most 255."""
    consonants: int
    """Loudness of the consonants, per cent."""
    breath: int
    """Aspiration noise, from 0."""
    rate: int
    """Words a minute."""
    accent: int
    """Which of `ACCENTS`, modulo their number."""

    @classmethod
    def draw(cls, seed: int, split: str, number: int) -> "Voice":
        """Speaker `number` of a split: a pure function of the arguments.

        A lower pitch goes with lower formants, as longer vocal folds do with a longer tract.
        """
        draws = generator(seed, "voice", split, number)
        low = int(75 * 2 ** draws.uniform(0, 1.6))
        scale = 88 + 24 * (low - 75) / 150 + draws.uniform(-6, 6)
        formants = tuple(
            (int(scale * draws.uniform(0.96, 1.04)), int(draws.integers(80, 116)), int(width))
            for width in draws.integers(85, 141, NUM_FORMANTS)
        )
        return cls(
            name=f"{split}-{number:03d}",
            pitch=(low, int(low * draws.uniform(1.3, 1.75))),
            formants=formants,
            tone=(int(draws.integers(140, 201)), int(draws.integers(80, 141))),
            consonants=int(draws.integers(80, 131)),
            breath=int(max(0, draws.integers(-3, 5))),
            rate=int(draws.integers(135, 196)),
            accent=int(draws.integers(len(ACCENTS["en"]))),
        )

    def definition(self) -> str:
        """The lines of a voice file.

        Flutter and roughness are off: their oscillators run on from one utterance to the next.
        """
        lines = [
            f"pitch {self.pitch[0]} {self.pitch[1]}",
            "flutter 0",
            "roughness 0",
            f"consonants {self.consonants} {self.consonants}",
            f"tone 600 {self.tone[0]} 1200 {sum(self.tone) // 2} 2000 {self.tone[1]}",
            *(f"formant {i} {f} {h} {w}" for i, (f, h, w) in enumerate(self.formants)),
        ]
        if self.breath:
            lines.append("breath 0 " + " ".join([str(self.breath)] * 7))
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Utterance:
    """What is said, by whom and how."""

    text: str
    lang: str
    voice: Voice
    tempo: float = 1.0
    """Of the speaker's own rate."""
    pitch: int = 50
    """Height within the speaker's range, 0 to 99."""
    liveliness: int = 50
    """Width of the intonation, 0 to 99."""


class Espeak:
    """The speech engine espeak-ng; its state is global, so a process has one, see `engine`."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise DataError(
                "synthetic speech needs the package espeakng-loader: pip install 'trimodal[demo]'"
            ) from None
        self._folder = tempfile.TemporaryDirectory(prefix="voice", dir=_short_folder())
        atexit.register(self._folder.cleanup)
        self._data = Path(espeakng_loader.get_data_path())
        self._voices: dict[tuple[Voice, str], bytes] = {}
        self._chunks: list[np.ndarray] = []
        self._library = self._load(espeakng_loader.get_library_path())
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _load(self, path: str) -> ctypes.CDLL:
        library = ctypes.CDLL(path)
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        data = self._data
        if len(bytes(data)) > LONGEST_PATH:
            data = Path(self._folder.name) / "espeak-ng-data"
            data.symlink_to(self._data)
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, bytes(data), _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise StorageError(f"the speech engine cannot use its data in {self._data}")
        return library

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def _voice(self, voice: Voice, lang: str) -> bytes:
        key = voice, lang
        if key not in self._voices:
            accents = ACCENTS[lang]
            language = (self._data / "lang" / accents[voice.accent % len(accents)]).read_bytes()
            path = Path(self._folder.name) / f"v{len(self._voices)}"
            path.write_bytes(language + b"\n" + voice.definition().encode())
            self._voices[key] = bytes(path)
        return self._voices[key]

    def say(self, utterance: Utterance) -> np.ndarray:
        """Synthesise (S,) int16 samples at `SAMPLE_RATE`, silence at the ends cut off.

        The same utterance gives the same samples in any process and after any other utterance.

        Raises:
            DataError: nothing of the text can be spoken.
        """
        library = self._library
        voice = self._voice(utterance.voice, utterance.lang)
        if library.espeak_SetVoiceByFile(voice) != 0:
            raise StorageError(f"the speech engine cannot read its voice file {voice.decode()}")
        settings = {
            _RATE: round(utterance.voice.rate * utterance.tempo),
            _VOLUME: VOLUME,
            _PITCH: utterance.pitch,
            _RANGE: utterance.liveliness,
        }
        for parameter, value in settings.items():
            library.espeak_SetParameter(parameter, value, 0)
        seed = 1 + digest(utterance.voice.name, utterance.text) % 2**30
        library.espeak_ng_SetRandSeed(seed)
        self._chunks.clear()
        text = utterance.text.encode() + b"\0"
        status = library.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None)
        samples = np.concatenate([np.zeros(0), *self._chunks])
        peak = np.abs(samples).max(initial=0)
        if status != 0 or peak == 0:
            raise DataError(f"{utterance.text!r} cannot be spoken in {utterance.lang}")
        if peak > OVERLOAD:
            raise DataError(f"voice {utterance.voice.name} is too loud for the engine")
        samples = np.rint(samples * (PEAK / peak)).astype(np.int16)
        audible = np.flatnonzero(np.abs(samples) > AUDIBLE)
        return samples[max(0, audible[0] - MARGIN) : audible[-1] + MARGIN]


@functools.cache
def engine() -> Espeak:
    """The engine of this process.

    Raises:
        DataError: the wheel that carries it is not installed.
    """
    return Espeak()


def _short_folder() -> str | None:
    """Where voice files go: the usual place for temporary files, unless its path is too long."""
    return None if len(tempfile.gettempdir().encode()) < LONGEST_PATH else "/tmp"  # noqa: S108
