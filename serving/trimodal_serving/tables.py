"""The tables of LanceDB as folders: which were made as a whole, and how one goes at once.

names = table_names(folder); erase(folder, "cats")
"""

import shutil
from contextlib import suppress
from pathlib import Path

TABLE = ".lance"
GONE = ".gone"
"""What the folder of a table ends with, and that of one that is being deleted."""
BEGUN = {"_transactions", "_versions"}
"""What is in a folder before it is a table."""


def table_names(folder: Path) -> list[str]:
    """What tables there are, in order; not those whose maker died before they were any."""
    return sorted(path.stem for path in folder.glob(f"*{TABLE}") if not _is_begun(path))


def erase(folder: Path, name: str) -> None:
    """Delete a table, or what there is of one; from the first moment on it is none any more.

    Raises:
        OSError: the disk does not let it go.
    """
    gone = folder / f"{name}{GONE}"
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        (folder / f"{name}{TABLE}").rename(gone)
        shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Delete the rest of tables that a process did not live to delete, as far as it can be."""
    for gone in folder.glob(f"*{GONE}"):
        shutil.rmtree(gone, ignore_errors=True)


def _is_begun(path: Path) -> bool:
    """Whether nothing is in a folder yet but what a table begins with."""
    if any(path.glob("_versions/*.manifest")):
        return False
    return {part.name for part in path.iterdir()} <= BEGUN
