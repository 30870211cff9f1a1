"""Each tenant's indexes, in a folder of its own.

folders = await IndexFolders.open(Path("indexes")); indexes = await folders.of(current())
"""

import asyncio
import hashlib
from pathlib import Path

from trimodal_serving.admission import Admission
from trimodal_serving.caller import Caller
from trimodal_serving.store import MOST_WORK, Indexes

TENANTS = "tenants"
"""The folder, beside the indexes of a server without keys, in which those of tenants lie."""


class IndexFolders:
    """All indexes of a server; a tenant sees its own, and may name them as it likes.

    The work on all of them is bounded together.
    """

    def __init__(self, folder: Path, shared: Indexes, admission: Admission) -> None:
        self._folder = folder
        self._shared = shared
        self._admission = admission
        self._own: dict[str, Indexes] = {}
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, folder: Path) -> "IndexFolders":
        """Open a folder, which is made if it is not there.

        Raises:
            ConfigError: LanceDB is not installed.
            StorageError: the folder cannot be used.
        """
        admission = Admission(MOST_WORK)
        return cls(folder, await Indexes.open(folder, admission), admission)

    async def of(self, caller: Caller) -> Indexes:
        """The indexes of whoever asks; without keys they are everybody's.

        Raises:
            StorageError: the folder of the tenant cannot be used.
        """
        if caller.key_id is None:
            return self._shared
        async with self._lock:
            if caller.tenant not in self._own:
                path = self._folder / TENANTS / _folder_name(caller.tenant)
                self._own[caller.tenant] = await Indexes.open(path, self._admission)
        return self._own[caller.tenant]


def _folder_name(tenant: str) -> str:
    """Two tenants never share one, not even where `Bob` and `bob` are the same folder."""
    return f"{tenant}-{hashlib.sha256(tenant.encode()).hexdigest()[:12]}"
