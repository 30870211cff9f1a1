"""Weights that single components of a new model start from.

start_components(model, config, processor)
"""

from collections.abc import Mapping
from typing import Any

import torch

from trimodal.config import Component, RunConfig
from trimodal.errors import ConfigError
from trimodal.models import TrimodalModel, load
from trimodal.processors import TrimodalProcessor
from trimodal.schema import flat, to_dict
from trimodal.training.components import depths, place
from trimodal.training.identity import differences

MEANING: Mapping[Component, tuple[str, ...]] = {
    "vision": ("vision", "vision_input", "vision_stem", "pooling_orders", "embedding_dim"),
    "text": ("text", "vocabulary", "pooling_orders", "embedding_dim"),
    "speech": ("speech", "speech_input", "pooling_orders", "embedding_dim"),
    "trunk": ("trunk", "embedding_dim"),
    "heads": ("vocabulary", "vision_codes", "speech_codes", "best_rq_codebooks"),
}
"""By component, the settings of the architecture without which its weights mean something else."""
LIMITS = ("max_tokens", "max_pixels", "max_seconds", "dropout")
"""Settings that weights do not depend on."""


def start_components(model: TrimodalModel, config: RunConfig, processor: TrimodalProcessor) -> None:
    """Fill the components that `training.start_from` names with the weights of trained models.

    Raises:
        ConfigError: a component of such a model has another architecture, or its text ids or codes
            mean something else.
        StorageError: a folder is not a model.
    """
    sources = {folder: load(folder) for folder in config.training.start_from.values()}
    for component, folder in config.training.start_from.items():
        where = f"training.start_from.{component}: {folder}"
        source = sources[folder]
        _check_meaning(source, model, component, where)
        if component == "text":
            _check_ids(source.processor, processor, where)
        _fill(source, model, component, where)


def _check_meaning(
    source: TrimodalModel, model: TrimodalModel, component: Component, where: str
) -> None:
    before, now = (_settings(to_dict(m.architecture), component) for m in (source, model))
    changed = differences(before, now)
    if changed:
        raise ConfigError(f"{where} has another architecture: {changed}")


def _settings(architecture: Mapping[str, Any], component: Component) -> dict[str, Any]:
    tree = flat({name: architecture[name] for name in MEANING[component]})
    return {key: value for key, value in tree.items() if key.split(".")[-1] not in LIMITS}


def _check_ids(source: TrimodalProcessor | None, now: TrimodalProcessor, where: str) -> None:
    """The table of text holds the pieces, and the codes of pictures and speech."""
    if source is None or source.text.proto != now.text.proto:
        raise ConfigError(f"{where} has another tokenizer than data.tokenizer")
    if source.codes is None or now.codes is None:
        return
    before, after = (p.tokenizers.fingerprints() for p in (source.codes, now.codes))
    for kind, fingerprint in before.items():
        if kind in after and kind != "vocoder" and after[kind] != fingerprint:
            raise ConfigError(f"{where} has another {kind} than data.tokenizers")


def _fill(source: TrimodalModel, model: TrimodalModel, component: Component, where: str) -> None:
    blocks = depths(model)
    given = source.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if place(name, blocks).component != component:
                continue
            if name not in given or given[name].shape != weight.shape:
                found = list(given[name].shape) if name in given else "missing"
                raise ConfigError(f"{where}: {name} is {found}, here it is {list(weight.shape)}")
            weight.copy_(given[name])
