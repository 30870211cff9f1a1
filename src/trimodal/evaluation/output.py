"""Files that are either whole or not there at all.

write_whole(Path("results.json"), text.encode())
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from trimodal.errors import StorageError


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before the work that would be lost.

    Raises:
        StorageError: the folder does not exist or takes no files, or `path` is a folder.
    """
    if not path.parent.is_dir():
        raise StorageError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise StorageError(f"{path} cannot be written: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"{path} cannot be written: no permission in {path.parent}")


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` where `path` is, in one step, so that no reader ever sees half of it.

    Raises:
        StorageError: it cannot be written.
    """
    check_writable(path)
    name = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)  # a temporary file is born private
        Path(name).replace(path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def write_json(path: Path, tree: Any) -> None:
    """Write JSON that any parser reads: no NaN, no infinity.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False)
    # a path may hold bytes that are no text; JSON spells them as backslashreplace does
    write_whole(path, f"{text}\n".encode(errors="backslashreplace"))
