"""What a run is made of, from its configuration: processor, data, and a model to begin with.

processor = build_processor(config)
model = new_model(config, processor)
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from trimodal.config import RunConfig, TrainingConfig
from trimodal.data.dataset import RowDataset
from trimodal.data.manifest import manifest_digest, read_each
from trimodal.errors import ConfigError
from trimodal.models import TrimodalConfig, TrimodalModel, load
from trimodal.models.layers import Block, Transformer
from trimodal.processors import TextProcessor, TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.storage import read_bytes
from trimodal.tokenizers import Tokenizers
from trimodal.training.components import lock
from trimodal.training.identity import differences
from trimodal.training.starting import start_components
from trimodal.vocabulary import Vocabulary


def build_processor(config: RunConfig) -> TrimodalProcessor:
    """The processor of the configured model, with the tokenizer that the data names."""
    model = config.model
    text = TextProcessor.from_file(
        config.data.tokenizer, Vocabulary(model.vocabulary), model.max_text_tokens
    )
    folder = config.data.tokenizers
    tokenizers = None if folder is None else Tokenizers.load(folder)
    for name in config.objectives.tokenized:
        if tokenizers is None or getattr(tokenizers, name) is None:
            raise ConfigError(f"data.tokenizers: {folder} holds no {name} tokenizer")
    return TrimodalProcessor(model, text.proto, tokenizers)


def build_dataset(config: RunConfig, processor: TrimodalProcessor) -> RowDataset:
    """The training rows with the configured augmentation."""
    positives = (
        config.objectives.contrastive.positives if config.objectives.contrastive else "group"
    )
    each = read_each(config.data.train, tolerant=config.data.tolerance > 0)
    return RowDataset(
        [row for rows in each for row in rows],
        processor,
        config.data.vision_augment,
        config.data.speech_augment,
        positives,
        int(config.data.cache_gigabytes * 2**30),
        [len(rows) for rows in each],
    )


def data_fingerprint(config: RunConfig, processor: TrimodalProcessor) -> str:
    """A hash of the bytes of the training manifests and of the tokenizers."""
    total = hashlib.sha256()
    for name, known in _tokenizer_digests(processor).items():
        total.update(f"{name}:{known}".encode())
    for path in config.data.train:
        total.update(bytes.fromhex(manifest_digest(path)))
    total.update(hashlib.sha256(read_bytes(config.data.tokenizer)).digest())
    return total.hexdigest()


def new_model(
    config: RunConfig,
    processor: TrimodalProcessor,
    saved: Mapping[str, Any] | None = None,
    dataset: RowDataset | None = None,
) -> TrimodalModel:
    """A new model, or the weights that `training` names; what is frozen takes no gradients.

    Args:
        config: of the run.
        processor: the model's own.
        saved: the state of a checkpoint that its weights will be filled from, so that neither
            `init_from` nor `start_from` is read; None for a run that begins.
        dataset: what it is trained on, which says whether it learns to answer questions; None
            leaves that to `saved`.

    Raises:
        ConfigError: the weights that are named do not fit, or nothing is left to train.
        StorageError: a folder is not a model.
    """
    folder = config.training.init_from
    if folder is None or saved is not None:
        # a checkpoint of before says nothing of classes
        told = (saved or {}).get("classes", {})
        model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model), **told))
        contrast = config.objectives.contrastive
        if contrast is not None and contrast.loss == "sigmoid":
            model.start_sigmoid()
        if saved is None:
            start_components(model, config, processor)
    else:
        model = load(folder)
        _check_start(model, config, processor)
    lock(model, config.training)
    model.processor = processor
    model.config.generates = list(config.objectives.generates)
    known = (saved or {}).get("answers")
    model.config.answers = known if dataset is None else _learns_answers(config, dataset)
    return model


def classes(model: TrimodalModel) -> dict[str, list[str]]:
    """What a checkpoint has to say of a head that a model may have been given before its run."""
    names = ("class_labels", "class_inputs")
    return {name: list(getattr(model.config, name)) for name in names}


def set_up_blocks(model: TrimodalModel, config: TrainingConfig) -> None:
    """Recompute or compile the blocks of a model, as a run asks."""
    if config.compile:
        # such as that of a norm: as an input it would have each block traced and derived twice
        torch._dynamo.config.specialize_float = True
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recomputes = config.activation_checkpointing
        elif isinstance(module, Block) and config.compile:
            # how attention goes about a batch differs from batch to batch
            attention: Any = module.attention
            attention.forward = torch.compiler.disable(attention.forward)
            module.compile(dynamic=True)  # and so does the number of tokens


def _learns_answers(config: RunConfig, dataset: RowDataset) -> bool:
    """Whether the model of a run is shown questions with their answers."""
    causal = config.objectives.causal
    if causal is None or not (causal.weight and causal.rate and causal.answers):
        return False
    return any(row.question is not None and row.answer is not None for row in dataset.rows)


def _check_start(model: TrimodalModel, config: RunConfig, processor: TrimodalProcessor) -> None:
    """Refuse weights of another architecture, or whose text ids mean other pieces."""
    where = f"training.init_from: {config.training.init_from}"
    changed = differences({"model": to_dict(model.architecture)}, {"model": to_dict(config.model)})
    if changed:
        raise ConfigError(f"{where} has another architecture: {changed}")
    if model.processor is None or model.processor.text.proto != processor.text.proto:
        raise ConfigError(
            f"{where} has another tokenizer than data.tokenizer: {config.data.tokenizer}"
        )
    before, now = _tokenizer_digests(model.processor), _tokenizer_digests(processor)
    for kind in before:
        if before[kind] != now.get(kind):
            raise ConfigError(f"{where} has another {kind} than data.tokenizers")


def _tokenizer_digests(processor: TrimodalProcessor) -> dict[str, str]:
    """By kind, what codes mean; the vocoder may change."""
    digests = {} if processor.codes is None else processor.codes.tokenizers.fingerprints()
    return {kind: digest for kind, digest in digests.items() if kind != "vocoder"}
