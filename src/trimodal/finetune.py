"""Adapting a pre-trained model: a classification head, with all weights, LoRA or none behind it.

model = trimodal.finetune("runs/demo/model", "data/digits/train.jsonl", inputs=["image"], lora=8)
model.save_pretrained("runs/classifier")
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from trimodal.assembly import assemble, embedding_cost, whole
from trimodal.batch import Modality, Sample, to_device
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data import Row, read_manifest
from trimodal.data.dataset import RowDataset
from trimodal.errors import ConfigError, DataError, NumericError
from trimodal.evaluation.embedding import load_model
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.packing import first_fit
from trimodal.progress import Progress
from trimodal.streams import generator, permutation
from trimodal.training.optimizer import parameter_groups

if TYPE_CHECKING:
    from peft import PeftModel

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How a model is adapted."""

    inputs: tuple[str, ...] = ("image", "speech")
    """What the head may see; text is left out by default, for it often spells the label."""
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    lora: int | None = None
    """Rank of the adapters; without one, all weights are trained."""
    freeze: bool = False
    """Train the head alone."""
    seed: int = 0
    token_budget: int = 16_384
    cache_gigabytes: float = 2.0


def finetune(
    model: TrimodalModel | str | Path,
    data: str | Path,
    *,
    inputs: Sequence[str] = ("image", "speech"),
    epochs: int = 5,
    batch_size: int = 64,
    learning_rate: float = 5e-4,
    lora: int | None = None,
    freeze: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> TrimodalModel:
    """Train a classification head on the labels of a manifest.

    Args:
        model: a model or its folder; it is left as it is. A folder's model is put on the GPU if
            there is one.
        data: a manifest whose rows have labels.
        inputs: the modalities that the head learns to classify from, alone and together.
        epochs: passes over the rows.
        batch_size: rows a step.
        learning_rate: its peak; it falls linearly to 0.
        lora: rank of low-rank adapters (Hu et al., 2021); only they and the head are trained, and
            they are merged into the weights at the end.
        freeze: train nothing but the head.
        seed: of order and initialisation.
        progress: say on stderr how far it is, with the loss, and a line for each epoch.

    Returns:
        A model with `class_labels`, which saves, loads, embeds, evaluates and serves like any.

    Raises:
        DataError: a row has no label, or nothing of what the head may see.
        ConfigError: the settings contradict each other, or LoRA's package is not installed.
        NumericError: the loss is not finite.
    """
    settings = FinetuneSettings(
        inputs=tuple(inputs),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        lora=lora,
        freeze=freeze,
        seed=seed,
    )
    _check(settings)
    source = model if isinstance(model, TrimodalModel) else load_model(model)
    rows = read_manifest(data)
    labels = _labels(rows, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned = _with_head(source, labels, settings)
        return _Finetuning(tuned, rows, settings).run(progress)


def _check(settings: FinetuneSettings) -> None:
    unknown = set(settings.inputs) - {m.data_name for m in Modality}
    if unknown or not settings.inputs:
        raise ConfigError(f"inputs: got {', '.join(unknown) or 'none'}; use image, text or speech")
    if settings.lora is not None and settings.freeze:
        raise ConfigError("lora and freeze contradict each other: adapters would not be trained")
    if settings.lora is not None and settings.lora < 1:
        raise ConfigError(f"lora: the rank must be at least 1, got {settings.lora}")
    if settings.epochs < 1 or settings.batch_size < 1:
        raise ConfigError("epochs and batch_size must be at least 1")
    if not 0 < settings.learning_rate < math.inf:
        raise ConfigError(f"learning_rate: must be above 0, got {settings.learning_rate}")
    if not 0 <= settings.seed < 2**63:
        raise ConfigError(f"seed: must be from 0 to 2**63 - 1, got {settings.seed}")


def _labels(rows: Sequence[Row], settings: FinetuneSettings) -> list[str]:
    for row in rows:
        if row.label is None:
            raise DataError(f"{row.where}: has no label")
        if not set(row.data_names) & set(settings.inputs):
            raise DataError(f"{row.where}: has none of {', '.join(settings.inputs)}")
    return sorted({cast(str, row.label) for row in rows})


def _with_head(
    source: TrimodalModel, labels: Sequence[str], settings: FinetuneSettings
) -> TrimodalModel:
    config = TrimodalConfig(
        architecture=source.config.architecture,
        class_labels=labels,
        class_inputs=settings.inputs,
    )
    tuned = TrimodalModel(config)
    weights = {k: v for k, v in source.state_dict().items() if not k.startswith("classifier.")}
    tuned.load_state_dict(weights, strict=False)
    tuned.processor = source.processor
    nn.Module.to(tuned, source.device)
    return tuned


class _Finetuning:
    """The loop; order and draws are pure functions of (seed, epoch, row)."""

    def __init__(
        self, model: TrimodalModel, rows: Sequence[Row], settings: FinetuneSettings
    ) -> None:
        if model.processor is None:
            raise ConfigError("the model has no processor; load it with trimodal.load")
        self.model, self.settings = model, settings
        self.targets = [model.class_labels.index(cast(str, row.label)) for row in rows]
        cache = int(settings.cache_gigabytes * 2**30)
        self.dataset = RowDataset(
            rows, model.processor, VisionAugmentConfig(), SpeechAugmentConfig(), cache_bytes=cache
        )
        self.inputs = [Modality.of(name) for name in settings.inputs]

    def run(self, progress: bool) -> TrimodalModel:
        settings = self.settings
        adapted = self._adapt()
        groups = parameter_groups(self.model, settings.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        trained = [parameter for group in groups for parameter in group["params"]]
        steps = settings.epochs * -(-len(self.dataset) // settings.batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        self.model.train()
        with Progress(settings.epochs * len(self.dataset), "trained on", shown=progress) as bar:
            for epoch in range(settings.epochs):
                total, right = 0.0, 0
                order = permutation(len(self.dataset), settings.seed, epoch).tolist()
                for first in range(0, len(order), settings.batch_size):
                    indices = order[first : first + settings.batch_size]
                    loss, hits = self._step(indices, epoch)
                    if not math.isfinite(loss):
                        raise NumericError(f"epoch {epoch + 1}: the loss is {loss}")
                    total, right = total + loss * len(indices), right + hits
                    nn.utils.clip_grad_norm_(trained, 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    schedule.step()
                    bar.advance(len(indices), f"loss {loss:.4f}")
                bar.say(
                    f"epoch {epoch + 1} of {settings.epochs}: loss {total / len(order):.4f}, "
                    f"{right / len(order):.1%} of the rows right"
                )
        merged = adapted.merge_and_unload() if adapted is not None else self.model
        return cast(TrimodalModel, merged).requires_grad_(True).eval()

    def _adapt(self) -> "PeftModel | None":
        """Choose what is trained; returns the adapted model if there are adapters."""
        if self.settings.lora is not None:
            try:
                from peft import LoraConfig, get_peft_model
            except ImportError:
                raise ConfigError(
                    "lora needs the package peft: pip install 'trimodal[train]'"
                ) from None

            config = LoraConfig(
                r=self.settings.lora,
                lora_alpha=2 * self.settings.lora,
                target_modules=LORA_TARGETS,
                modules_to_save=["classifier"],
            )
            return get_peft_model(self.model, config)
        if self.settings.freeze:
            self.model.requires_grad_(False)
            cast(nn.Module, self.model.classifier).requires_grad_(True)
        return None

    def _step(self, indices: Sequence[int], epoch: int) -> tuple[float, int]:
        """Gradients of the mean cross-entropy of these rows; returns it, and how many are right."""
        samples = [
            self._draw(self.dataset.sample(i, self.settings.seed, epoch), epoch) for i in indices
        ]
        total, right = 0.0, 0
        for chosen in first_fit(list(map(embedding_cost, samples)), self.settings.token_budget):
            media = [samples[i] for i in chosen]
            fused = [whole(sample) for sample in media]
            batch = assemble(media, fused, summaries=self.model.architecture.summaries)
            batch = to_device(batch, self.model.device)
            z_NSE = cast(torch.Tensor, self.model(**batch.inputs()).z_NSE)
            slots = [
                len(Modality) if f else int(next(iter(s.media)))
                for f, s in zip(fused, media, strict=True)
            ]
            z_NE = z_NSE[torch.arange(len(media)), torch.tensor(slots)]
            logits = self.model.classify(z_NE)
            target = torch.tensor([self.targets[indices[i]] for i in chosen], device=logits.device)
            loss = F.cross_entropy(logits, target, reduction="sum") / len(indices)
            loss.backward()
            total += float(loss.detach())
            right += int((logits.argmax(-1) == target).sum())
        return total, right

    def _draw(self, sample: Sample, epoch: int) -> Sample:
        """A random non-empty subset of what the head may see, so that each suffices alone."""
        present = [m for m in self.inputs if m in sample.media]
        choices = [c for size in range(1, len(present) + 1) for c in combinations(present, size)]
        rng = generator("finetune", self.settings.seed, epoch, sample.id)
        chosen = choices[rng.integers(len(choices))]
        return replace(sample, media={m: sample.media[m] for m in chosen})
