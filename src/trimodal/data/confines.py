"""Where the files lie that a corpus names: within its own folder.

path = confined("images/1.png", Path("corpus"), "corpus/train.parquet:1")
"""

import functools
from pathlib import Path

from trimodal.errors import DataError


def confined(name: str | Path, folder: Path, where: str) -> Path:
    """The file that what stands at `where` calls `name`, below a folder.

    Whoever wrote the corpus chose its names, which might lead to any file of the machine, as might
    links among its files. The folder itself may be a link, and in the cache of a hub files of
    `snapshots/` are links into `blobs/`.

    Raises:
        DataError: `where: cause`, it leads out of the folder.
    """
    path = folder / name
    try:
        place = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, or a NUL
        raise DataError(f"{where}: {str(name)!r} cannot be read: {error}") from error
    if not any(place.is_relative_to(root) for root in _roots(folder.absolute())):
        raise DataError(f"{where}: {str(name)!r} leads out of {folder}")
    return path


@functools.lru_cache(maxsize=16)
def _roots(folder: Path) -> tuple[Path, ...]:
    snapshots = (place for place in folder.parents if place.name == "snapshots")
    return folder.resolve(), *(place.with_name("blobs").resolve() for place in snapshots)
