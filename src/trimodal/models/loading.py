"""Reading a model folder.

model = load("runs/demo/model")
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trimodal.errors import StorageError
from trimodal.models.trimodal import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor


def load(folder: str | Path, device: str | torch.device = "cpu") -> TrimodalModel:
    """The model of a folder, in evaluation mode and with its processor.

    Raises:
        StorageError: the folder is not a trimodal model, or a file of it is damaged.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder} is not a model folder: it has no readable config.json"
        ) from error
    if not isinstance(config, dict) or config.get("model_type") != TrimodalConfig.model_type:
        raise StorageError(f"{folder} holds another kind of model than trimodal's")
    if not (folder / "model.safetensors").is_file():
        raise StorageError(f"{folder} is not a model folder: it has no model.safetensors")
    model = TrimodalModel(TrimodalConfig.from_pretrained(folder, local_files_only=True))
    try:
        # strict, where `from_pretrained` would fill what is missing with random numbers
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        raise StorageError(
            f"{folder}/model.safetensors is damaged or does not fit config.json"
        ) from error
    model.processor = TrimodalProcessor.from_pretrained(folder)
    nn.Module.to(model, device)
    return model.eval()
