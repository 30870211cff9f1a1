"""A module that is a folder of config.json and model.safetensors.

tokenizer.save("runs/demo/tokenizers/vision_tokenizer")
tokenizer = VisionTokenizer.load("runs/demo/tokenizers/vision_tokenizer")
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from trimodal.errors import ConfigError, PathError, StorageError
from trimodal.schema import parse, to_dict
from trimodal.storage import refusal
from trimodal.weights import check_weights, read_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KINDS = ("vision_tokenizer", "speech_tokenizer", "vocoder")


class Stored(nn.Module):
    """A module that is built from a configuration alone and can be stored and read back."""

    kind: ClassVar[str]
    config_type: ClassVar[type[Any]]
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def describe(self) -> dict[str, Any]:
        """What config.json holds."""
        return {"kind": self.kind, **to_dict(self.config)}

    def save(self, folder: str | Path) -> None:
        """Write both files, each in one step.

        Raises:
            StorageError: they cannot be written.
        """
        folder = Path(folder)
        text = json.dumps(self.describe(), indent=2, allow_nan=False)
        weights = {name: w.detach().cpu().contiguous() for name, w in self.state_dict().items()}
        partial = folder / f".{os.getpid()}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, partial)
            partial.chmod(0o666 & ~_mask())  # safetensors writes private files
            partial.replace(folder / WEIGHTS)
            partial.write_text(f"{text}\n", encoding="utf-8")
            partial.replace(folder / CONFIG)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True) if folder.is_dir() else None
            cause = getattr(error, "strerror", None) or error
            raise StorageError(f"{folder} cannot be written: {cause}") from error

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder that `save` wrote; in evaluation mode.

        Raises:
            PathError: the folder is not there, or holds something else.
            StorageError: a file of it is missing, damaged or does not fit the other.
        """
        folder = Path(folder)
        config = cls._read_config(folder)
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise StorageError(f"{folder} is not a {_words(cls.kind)}: it has no {WEIGHTS}")
        try:
            with torch.device("meta"):  # takes no memory, whatever the sizes are
                empty = cls(config)
        except (RuntimeError, ValueError, OverflowError) as error:
            cause = str(error).partition("\n")[0]
            raise StorageError(f"{folder / CONFIG} holds a value of no use: {cause}") from error
        check_weights(weights, empty)
        module = cls(config)
        read_weights(module, weights)
        return module.to(device).eval()

    @classmethod
    def _read_config(cls, folder: Path) -> Any:
        tree = _read_tree(folder, _words(cls.kind))
        kind = tree.pop("kind", None)
        if kind != cls.kind:
            what = f"a {_words(kind)}" if isinstance(kind, str) else "something else"
            raise PathError(f"{folder} holds {what}, not a {_words(cls.kind)}")
        try:
            return parse(cls.config_type, tree, "")
        except ConfigError as error:
            raise StorageError(f"{folder / CONFIG}: {error}") from error


def stored_kind(folder: str | Path) -> str:
    """Which of the three a folder holds.

    Raises:
        PathError: none of them.
    """
    kind = _read_tree(Path(folder), "tokenizer or vocoder").get("kind")
    if kind not in KINDS:
        raise PathError(f"{folder} is not a tokenizer or vocoder: its {CONFIG} names no kind")
    return kind


def _read_tree(folder: Path, what: str) -> dict[str, Any]:
    try:
        tree = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{folder} is not a {what}: it has no readable {CONFIG}"
        raise refusal(message, error) from error
    if not isinstance(tree, dict):
        raise StorageError(f"{folder} is not a {what}: its {CONFIG} holds no keys")
    return tree


def fingerprint(module: Stored) -> str:
    """The SHA-256 of configuration and weights; the same wherever they are loaded."""
    total = hashlib.sha256(json.dumps(module.describe(), sort_keys=True).encode())
    for name, weight in sorted(module.state_dict().items()):
        value = weight.detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return total.hexdigest()


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
