"""Reading a model folder.

model = load("runs/demo/model")
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from trimodal.batch import Modality
from trimodal.errors import ConfigError, PathError, StorageError
from trimodal.models.narrowing import narrow
from trimodal.models.trimodal import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.storage import refusal
from trimodal.weights import check_weights, read_weights


def chosen_device(name: str) -> str:
    """`cpu` or `cuda`; `auto` is a GPU if there is one.

    Raises:
        ConfigError: there is no GPU.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine has no usable CUDA device")
    return name


def load(
    folder: str | Path, device: str | torch.device = "cpu", weights: str = "fp32"
) -> TrimodalModel:
    """The model of a folder, in evaluation mode and with its processor.

    Args:
        folder: what training or `save_pretrained` wrote.
        device: where it computes.
        weights: what its matrices are kept in, see `narrow`.

    Raises:
        PathError: the folder is not there, or not that of a trimodal model.
        StorageError: a file of it is damaged or does not fit the others.
    """
    folder = Path(folder)
    config = _read_config(folder)
    stored = folder / "model.safetensors"
    if not stored.is_file():
        raise StorageError(f"{folder} is not a model folder: it has no model.safetensors")
    check_weights(stored, _empty(folder, config))
    processor = _read_processor(folder, config)
    model = TrimodalModel(config)
    # strict, where `from_pretrained` would fill what is missing with random numbers
    read_weights(model, stored)
    model.processor = processor
    narrow(model, weights)
    nn.Module.to(model, device)
    return model.eval()


def _read_config(folder: Path) -> TrimodalConfig:
    path = folder / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{folder} is not a model folder: it has no readable config.json"
        raise refusal(message, error) from error
    if not isinstance(tree, dict) or tree.get("model_type") != TrimodalConfig.model_type:
        raise PathError(f"{folder} holds another kind of model than trimodal's")
    labels, inputs = tree.get("class_labels", []), tree.get("class_inputs", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise StorageError(f"{path}: class_labels must be a list of strings")
    names = [modality.data_name for modality in Modality]
    if not isinstance(inputs, list) or not all(name in names for name in inputs):
        raise StorageError(f"{path}: class_inputs must be a list of any of {', '.join(names)}")
    generates = tree.get("generates", [])
    if not isinstance(generates, list) or not all(name in names for name in generates):
        raise StorageError(f"{path}: generates must be a list of any of {', '.join(names)}")
    if not isinstance(tree.get("answers"), bool | None):
        raise StorageError(f"{path}: answers must be true or false")
    with _refusals(path):
        return TrimodalConfig.from_pretrained(folder, local_files_only=True)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What anybody raises of a value in a configuration, as an error that names the file."""
    try:
        yield
    except ConfigError as error:
        raise StorageError(f"{path}: {error}") from error
    except Exception as error:  # transformers and torch raise whatever they stumble over
        cause = str(error).strip().partition("\n")[0]
        raise StorageError(f"{path} holds a value that cannot be used: {cause}") from error


def _empty(folder: Path, config: TrimodalConfig) -> TrimodalModel:
    """A model without memory, whatever the sizes are."""
    with _refusals(folder / "config.json"), torch.device("meta"):
        return TrimodalModel(config)


def _read_processor(folder: Path, config: TrimodalConfig) -> TrimodalProcessor:
    path = folder / "processor_config.json"
    try:
        processor = TrimodalProcessor.from_pretrained(folder)
    except ConfigError as error:
        raise StorageError(f"{path}: {error}") from error
    if to_dict(processor.config) != config.architecture:
        raise StorageError(f"{path} does not fit config.json: it is of another model")
    return processor
