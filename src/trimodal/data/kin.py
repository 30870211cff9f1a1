"""Media of other rows that mean the same: what a picture of the same thing can be drawn from.

kin = Kin(rows, groups)
other = kin.draw(index, Modality.SPEECH, rng)
"""

from collections.abc import Sequence

import numpy as np

from trimodal.batch import Modality
from trimodal.data.row import Row
from trimodal.storage import Source


class Kin:
    """The files of each group, by modality, each once however many rows name it."""

    def __init__(self, rows: Sequence[Row], groups: Sequence[int]) -> None:
        self.rows = rows
        self.groups = groups
        self._files: dict[tuple[int, Modality], dict[Source, int]] = {}
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
        place = self._place(members, own, modality)
        if len(members) == (place is not None):
            raise LookupError(f"{self.rows[index].where} has no kin of {modality.data_name}")
        chosen = int(rng.integers(len(members) - (place is not None)))
        # every other member is as likely: those from the own one on move up by one
        return self.rows[members[chosen + (place is not None and chosen >= place)]]

    def _place(self, members: Sequence[int], own: Source | None, modality: Modality) -> int | None:
        """Where the own file stands among those of its group."""
        if own is None:
            return None
        paths = (_files(self.rows[i])[modality] for i in members)
        return next((place for place, path in enumerate(paths) if path == own), None)


def _files(row: Row) -> dict[Modality, Source]:
    files = {Modality.VISION: row.image, Modality.SPEECH: row.speech}
    return {modality: path for modality, path in files.items() if path is not None}
