"""Whether a manifest can be trained on: every row read, every medium decoded.

for problem in check_manifest("corpus/train.jsonl"): print(problem)
"""

from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.data.manifest import scan_manifest
from trimodal.data.row import KNOWN, OTHERS, Row
from trimodal.errors import DataError
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.progress import Progress
from trimodal.storage import Source

OFTEN_MEANT = {
    "audio": "speech",
    "wav": "speech",
    "caption": "text",
    "sentence": "text",
    "picture": "image",
    "img": "image",
    "language": "lang",
    "class": "label",
    "speaker_id": "speaker",
    "group_id": "group",
}
"""What other formats call keys of a manifest."""
MOST_KEYS = 20
"""That a summary names."""


@dataclass
class Census:
    """What the rows of a manifest hold, and what is wrong with them."""

    problems: list[str] = field(default_factory=list)
    """Each `FILE:LINE: cause`, in the order of the rows."""
    rows: int = 0
    rows_with: Counter[str] = field(default_factory=Counter)
    """Rows with an `image`, a `text`, `speech`, a `question`, a `label`."""
    texts: Counter[str] = field(default_factory=Counter)
    """Texts in each language."""
    utterances: Counter[str] = field(default_factory=Counter)
    """Utterances in each language that `speech_lang` names."""
    speakers: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Of speech."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Rows with each key that a manifest does not define."""

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        self.rows_with.update(row.data_names)
        self.rows_with.update(name for name in ("question", "label") if getattr(row, name))
        self.texts.update(list(row.texts))
        if row.speech is not None:
            self.utterances.update([row.speech_lang or "unnamed"])
        for counter, value in (
            (self.speakers, row.speaker),
            (self.labels, row.label),
            (self.groups, row.group),
        ):
            if value is not None:
                counter[value] += 1
        self.unknown.update(key for key in row.metadata if key not in OTHERS)

    def summary(self) -> str:
        """Plain lines for people."""
        lines = [
            f"rows: {_listed(self.rows_with, self.rows)}",
            f"texts: {_listed(self.texts)}",
            f"speech: {_listed(self.utterances)}, {self.seconds / 3600:.2f} hours, "
            f"{len(self.speakers)} speakers",
            f"labels: {len(self.labels)}, groups: {len(self.groups)}",
        ]
        if self.unknown:
            shown = self.unknown.most_common(MOST_KEYS)
            left = len(self.unknown) - len(shown)
            told = ", ".join(f"{key} {count}" for key, count in shown)
            lines.append(f"kept as metadata: {told}{f' and {left} more keys' if left else ''}")
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """A sentence for each unknown key that is probably a slip for a known one."""
        keys = {**{key: key for key in (*KNOWN, *OTHERS)}, **OFTEN_MEANT}
        found = []
        for key, count in self.unknown.most_common():
            if near := get_close_matches(key.casefold(), keys, n=1, cutoff=0.8):
                rows = "1 row" if count == 1 else f"{count} rows"
                found.append(
                    f"{key!r} in {rows} is unknown and kept as metadata; "
                    f"did you mean {keys[near[0]]!r}?"
                )
        return found


def check_manifest(
    path: str | Path,
    vision: VisionProcessor | None = None,
    speech: SpeechProcessor | None = None,
) -> list[str]:
    """Every problem of a manifest and of its media, each `FILE:LINE: cause`; none if it is sound.

    Args:
        path: the manifest.
        vision: whose limits pictures must keep; the default ones if none is given.
        speech: whose limits speech must keep, likewise.
    """
    return take_census(path, vision, speech).problems


def take_census(
    path: str | Path,
    vision: VisionProcessor | None = None,
    speech: SpeechProcessor | None = None,
) -> Census:
    """Read every row and decode every medium, and count; the arguments are `check_manifest`'s."""
    decoder = _Decoder(
        vision or VisionProcessor(VisionInputConfig()),
        speech or SpeechProcessor(SpeechInputConfig()),
    )
    census = Census()
    scanned = scan_manifest(path)
    with Progress(None, "checked", shown=True) as bar:
        try:
            for row, problems in bar.counted(scanned):
                census.problems += problems
                if row is None:
                    continue
                census.add(row)
                causes, seconds = decoder.decode(row)
                census.problems += causes
                census.seconds += seconds
        except DataError as error:  # the manifest as a whole
            census.problems.append(str(error))
    return census


class _Decoder:
    """Decodes each file once, however many rows share it."""

    def __init__(self, vision: VisionProcessor, speech: SpeechProcessor) -> None:
        self.vision = vision
        self.speech = speech
        self._found: dict[tuple[str, Source], float | DataError] = {}

    def decode(self, row: Row) -> tuple[list[str], float]:
        """The problems of the media of a row, and its seconds of speech."""
        problems, seconds = [], 0.0
        files = (("image", row.image), ("speech", row.speech), ("speech", row.question_speech))
        for name, path in files:
            if path is None:
                continue
            if (name, path) not in self._found:
                self._found[name, path] = self._read(name, path)
            found = self._found[name, path]
            if isinstance(found, DataError):
                problems.append(f"{row.where}: {path}: {found}")
            else:
                seconds += found
        return problems, seconds

    def _read(self, name: str, path: Source) -> float | DataError:
        try:
            if name == "speech":
                return len(self.speech.decode(path)) / self.speech.config.sample_rate
            self.vision.decode(path)
        except DataError as error:
            return error
        return 0.0


def _listed(counts: Counter[str], total: int | None = None) -> str:
    parts = [f"{name} {count}" for name, count in sorted(counts.items())]
    listed = ", ".join(parts) or "none"
    return listed if total is None else f"{total} ({listed})"
