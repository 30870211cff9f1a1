"""Files that are either whole or not there at all.

    write_whole(Path("results.json"), text.encode())
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from trimodal.errors import StorageError


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` where `path` is, in one step, so that no reader ever sees half of it.

    Raises:
        StorageError: the folder does not exist, or cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes it private
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def write_json(path: Path, tree: Any) -> None:
    """Write JSON that any parser reads: no NaN, no infinity.

    Raises:
        StorageError: as `write_whole`.
    """
    text = json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False)
    write_whole(path, f"{text}\n".encode())
