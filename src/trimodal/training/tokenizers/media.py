"""The media files of manifests, each counted once, decoded once, and taken in an order of keys.

files = MediaFiles(read_manifests(paths), "image", processor.decode, cache_bytes)
"""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from trimodal.data.row import Row
from trimodal.errors import DataError
from trimodal.storage import Source, resolved
from trimodal.streams import permutation

Decoded = tuple[Tensor, ...]


class MediaFiles:
    """The pictures or the utterances of rows; several rows may name one file."""

    def __init__(
        self,
        rows: Sequence[Row],
        what: Literal["image", "speech"],
        decode: Callable[[Source], Decoded],
        cache_bytes: int = 0,
    ) -> None:
        found: dict[Source, tuple[Source, str]] = {}
        for row in rows:
            path = row.image if what == "image" else row.speech
            if path is not None:
                found.setdefault(resolved(path), (path, row.where))
        if not found:
            raise DataError(f"no row of the manifests has {what}")
        self.files = list(found.values())
        self._decode = decode
        self._cache: dict[int, Decoded] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Decoded:
        """What `decode` gives, kept while there is room.

        Raises:
            DataError: `FILE:LINE: cause`, the file cannot be decoded.
        """
        if (kept := self._cache.get(index)) is not None:
            return kept
        path, where = self.files[index]
        try:
            decoded = self._decode(path)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        size = sum(tensor.numel() * tensor.element_size() for tensor in decoded)
        if size <= self._room:
            self._room -= size
            self._cache[index] = decoded
        return decoded

    def indices(self, step: int, batch_size: int, seed: int) -> list[int]:
        """The files of a step: a run goes through one permutation of them after another."""
        chosen = []
        orders: dict[int, list[int]] = {}
        for g in range(step * batch_size, (step + 1) * batch_size):
            epoch, position = divmod(g, len(self))
            if epoch not in orders:
                orders[epoch] = permutation(len(self), "tokenizer", seed, epoch).tolist()
            chosen.append(orders[epoch][position])
        return chosen
