"""The run directory: its lock, its resolved configuration and its metrics.

with RunDirectory(Path("runs/demo")) as run: ...
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from trimodal.config import RunConfig, dump_config, to_dict
from trimodal.errors import ConfigError, StorageError


class RunDirectory:
    """A run's files; holds an advisory lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.metrics = path / "metrics.jsonl"
        self._lock: TextIO | None = None

    def __enter__(self) -> "RunDirectory":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise StorageError(f"run_dir {self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"run_dir {self.path} is in use by another process") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration."""
        dump_config(config, self.path / "config.yaml")

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after `step`, and one that was cut short, so that none occurs twice."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                continue
        partial = self.metrics.with_suffix(".tmp")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(self.metrics)

    def replace_model(self, written: Path) -> None:
        """Put a finished export in place of the former one."""
        former = self.path / f".former-model-{os.getpid()}"
        if self.model.exists():
            self.model.rename(former)
        written.rename(self.model)
        shutil.rmtree(former, ignore_errors=True)


def identity(config: RunConfig, fingerprint: str) -> dict[str, Any]:
    """What has to stay the same for a run to be resumed."""
    tree = to_dict(config)
    return {
        "seed": config.seed,
        "model": tree["model"],
        "data": fingerprint,
        "training": {k: tree["training"][k] for k in ("batch_size", "precision")},
    }


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse to resume a run that is another one.

    Raises:
        ConfigError: names each key that differs and both of its values.
    """
    before, after = _flat(saved), _flat(now)
    changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    if changed:
        shown = "; ".join(f"{k} was {before.get(k)}, is {after.get(k)}" for k in changed[:4])
        raise ConfigError(
            f"{run_dir} cannot be resumed: {shown}. Use another run_dir to start anew"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
