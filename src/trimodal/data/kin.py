"""Media of other rows that mean the same: what a picture of the same thing can be drawn from.

kin = Kin(rows, groups)
other = kin.draw(index, Modality.SPEECH, rng)
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimodal.batch import Modality
from trimodal.data.manifest import Row


class Kin:
    """The files of each group, by modality, each once however many rows name it."""

    def __init__(self, rows: Sequence[Row], groups: Sequence[int]) -> None:
        self.rows = rows
        self.groups = groups
        self._files: dict[tuple[int, Modality], dict[Path, int]] = {}
        for index, (row, group) in enumerate(zip(rows, groups, strict=True)):
            for modality, path in _files(row).items():
                self._files.setdefault((group, modality), {}).setdefault(path, index)
        self._members = {key: list(files.values()) for key, files in self._files.items()}

    def modalities(self, index: int) -> frozenset[Modality]:
        """The modalities of which there is another medium than the row's own, of its meaning."""
        row, found = self.rows[index], set[Modality]()
        own = _files(row)
        for modality in (Modality.VISION, Modality.SPEECH):
            there = self._files.get((self.groups[index], modality), {})
            if len(there) > (own.get(modality) in there):
                found.add(modality)
        if len(row.texts) > 1:
            found.add(Modality.TEXT)
        return frozenset(found)

    def draw(self, index: int, modality: Modality, rng: np.random.Generator) -> Row:
        """A row with another picture or utterance of the same meaning; there must be one."""
        members = self._members[self.groups[index], modality]
        own = _files(self.rows[index]).get(modality)
        first = int(rng.integers(len(members)))
        for step in range(len(members)):
            row = self.rows[members[(first + step) % len(members)]]
            if _files(row)[modality] != own:
                return row
        raise LookupError(f"{self.rows[index].where} has no kin of {modality.data_name}")


def _files(row: Row) -> dict[Modality, Path]:
    files = {Modality.VISION: row.image, Modality.SPEECH: row.speech}
    return {modality: path for modality, path in files.items() if path is not None}
