"""Checkpoints: written beside, hashed, synced, then renamed into place; the newest valid one wins.

    save(folder, step, tensors, state, keep=2)
    loaded = load_newest(folder)

A folder `step-00000200` holds safetensors, `state.json` and `manifest.json` with the size and the
SHA-256 of each file, because no tensor format notices a flipped bit. Ranks that hold parts of the
tensors write a file each; the first of them waits for the others and puts the folder in place.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from trimodal.errors import PathError, StorageError
from trimodal.storage import MISSING, naming, patiently, sync
from trimodal.training.parts import WHOLE, Part, Parts, stem_of
from trimodal.training.sharding import own, read_own

NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})")
SEPARATOR = "::"
NOTE = ".written-"
WAIT_SECONDS = 600.0
NOTHING: Mapping[str, type] = {}


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: tensors by file stem, and the state."""

    step: int
    tensors: Mapping[str, Parts]
    state: Mapping[str, Any]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int,
    part: Part = WHOLE,
    given_up: threading.Event | None = None,
) -> Path:
    """Write `folder/step-XXXXXXXX`; once it is in place, all but the newest `keep` go.

    So do those of later steps: a run goes back only behind what is damaged. Of several writers each
    gives its rows of the tensors, and the first one's state counts. It waits for the others until
    the run is `given_up`, because one of them may have ended.

    Raises:
        StorageError: it could not be written; what was there before is untouched.
    """
    final = folder / f"step-{step:08d}"
    launch = part.launch or str(os.getpid())
    partial = folder / f".tmp-{step:08d}-{launch}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(".tmp-*") if part.rank == 0 else ():
            if not stale.name.endswith(f"-{launch}") or part.count == 1:
                _remove(stale)
        partial.mkdir(exist_ok=part.count > 1)
        entries = _write(partial, tensors, state, part)
        if part.rank > 0:
            return final
        entries |= _of_others(partial, part, given_up or threading.Event())
        manifest = partial / "manifest.json"
        manifest.write_text(json.dumps({"files": entries}, indent=2), encoding="utf-8")
        sync(manifest)
        sync(partial)
        _remove(final)
        partial.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for disks
        shutil.rmtree(partial, ignore_errors=True)
        cause = getattr(error, "strerror", None) or error
        raise StorageError(f"checkpoint {final} cannot be written: {cause}") from error
    found = sorted(_found(folder))
    former = [path for number, path in found if number <= step]
    later = [path for number, path in found if number > step]
    for old in (*former[:-keep], *later):
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(
    partial: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    part: Part,
) -> dict[str, Any]:
    """Write and sync the files of one writer; tell the first one of them where there are others."""
    hashed: dict[str, Future[dict[str, Any]]] = {}
    # a core hashes what a disk takes meanwhile
    with ThreadPoolExecutor(1, "hash") as hasher:
        for stem, named in tensors.items():
            path = partial / part.file(stem)
            # what has no rows is the same on all ranks
            mine = {k: v.contiguous() for k, v in named.items() if v.ndim or not part.rank}
            save_file(mine, path)
            hashed[path.name] = hasher.submit(_entry, path)
            sync(path)
        if part.rank == 0:
            path = partial / "state.json"
            path.write_text(json.dumps(state, indent=2), encoding="utf-8")
            hashed[path.name] = hasher.submit(_entry, path)
            sync(path)
    entries = {name: entry.result() for name, entry in sorted(hashed.items())}
    if part.rank > 0:
        note = partial / f"{NOTE}{part.rank}"
        beside = note.with_suffix(".new")
        beside.write_text(json.dumps(entries), encoding="utf-8")
        beside.rename(note)
    return entries


def _of_others(partial: Path, part: Part, given_up: threading.Event) -> dict[str, Any]:
    """Wait for the notes of the other writers, and remove them.

    Raises:
        StorageError: one of them did not come.
    """
    entries: dict[str, Any] = {}
    end = time.monotonic() + WAIT_SECONDS
    for rank in range(1, part.count):
        note = partial / f"{NOTE}{rank}"
        while not note.exists():
            if given_up.wait(0.02) or time.monotonic() > end:
                raise StorageError(f"rank {rank} did not write its part of {partial}")
        entries |= json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
    return entries


def load_newest(folder: Path, needed: Mapping[str, type] = NOTHING) -> Checkpoint | None:
    """The newest checkpoint whose files are what was written, or None if there is none.

    Args:
        folder: of all checkpoints.
        needed: what its state has to hold, and of what type; one that does not is damaged.

    Raises:
        StorageError: there are checkpoints and every one is damaged; or one cannot be read now,
            which does not make it damaged.
    """
    found = sorted(_found(folder), reverse=True)
    for step, path in found:
        read = _read(step, path, needed)
        if isinstance(read, Checkpoint):
            return read
        print(f"trimodal: checkpoint {path} is not used: {read}", file=sys.stderr)
    if found:
        raise StorageError(f"every checkpoint in {folder} is damaged; remove them to start over")
    return None


def load_step(folder: Path, step: int, needed: Mapping[str, type] = NOTHING) -> Checkpoint:
    """The checkpoint of one step; what is `needed` is as for `load_newest`.

    Raises:
        PathError: there is none.
        StorageError: it is damaged, or cannot be read now.
    """
    found = dict(_found(folder))
    if step not in found:
        there = ", ".join(str(number) for number in sorted(found)) or "none"
        raise PathError(f"{folder} has no checkpoint of step {step}; it has: {there}")
    read = _read(step, found[step], needed)
    if isinstance(read, str):
        raise StorageError(f"checkpoint {found[step]} is damaged: {read}")
    return read


def _read(step: int, path: Path, needed: Mapping[str, type]) -> Checkpoint | str:
    """A checkpoint, or what is wrong with it."""
    fault = patiently(functools.partial(_fault, path))
    if fault is not None:
        return fault
    files: dict[str, list[Path]] = {}
    with naming(path, "read"):
        for file in path.glob("*.safetensors"):
            files.setdefault(stem_of(file), []).append(file)
        written = (path / "state.json").read_bytes()
    try:
        state = json.loads(written)
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict) or any(
        not isinstance(state.get(key), kind) for key, kind in needed.items()
    ):
        return "state.json is not what a run writes"
    return Checkpoint(step, {stem: Parts(found) for stem, found in files.items()}, state)


def _found(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    with naming(folder, "read"):
        folders = [path for path in folder.iterdir() if _is_folder(path)]
    matches = ((NAME.fullmatch(path.name), path) for path in folders)
    return [(int(match[1]), path) for match, path in matches if match]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, if there is one; what a link names stays."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, found before any of its files is parsed.

    Raises:
        StorageError: its files cannot be read now, so nobody knows what they hold.
    """
    try:
        return _compared(path)
    except (*MISSING, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "manifest.json is missing or damaged"
    except OSError as error:
        cause = error.strerror or error
        raise StorageError(f"checkpoint {path} cannot be read: {cause}") from error


def _compared(path: Path) -> str | None:
    """What differs from the manifest of a checkpoint."""
    entries = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["files"]
    present = {p.name for p in path.iterdir()} - {"manifest.json"}
    if present != set(entries):
        return f"it should hold {', '.join(sorted(entries))}"
    for name, entry in entries.items():
        if _entry(path / name) != entry:
            return f"{name} is not what was written"
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What this rank holds of the optimizer's state, by parameter name."""
    return {
        f"{name}{SEPARATOR}{key}": own(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took out, whatever number of ranks did.

    Nothing else is kept: a parameter without state there begins anew.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key in tensors:
        name, _, entry = key.partition(SEPARATOR)
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU
        counts = entry == "step"
        value = tensors[key] if counts else read_own(tensors, key, parameter).to(parameter.device)
        optimizer.state[parameter][entry] = value
