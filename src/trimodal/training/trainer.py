"""The training loop.

train(load_config("configs/demo.yaml"))
"""

import hashlib
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError
from torch.utils.data import DataLoader

from trimodal.batch import Batch, to_device
from trimodal.config import RunConfig
from trimodal.data import read_manifest, read_manifests
from trimodal.data.dataset import RowDataset
from trimodal.errors import ConfigError, NumericError, StorageError, TrimodalError
from trimodal.models import TrimodalConfig, TrimodalModel, load
from trimodal.processors import TextProcessor, TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.tokenizers import Tokenizers
from trimodal.training.checkpoint import (
    load_newest,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from trimodal.training.distributed import sum_over_ranks
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.optimizer import build_optimizer, learning_rate
from trimodal.training.reporting import Reporter
from trimodal.training.run import RunDirectory, check_identity, differences, identity
from trimodal.training.throughput import computing_threads, peak_flops, training_flops
from trimodal.training.validation import validate
from trimodal.vocabulary import Vocabulary


def train(config: RunConfig) -> None:
    """Train, or resume what a former process left, and export the model.

    Raises:
        TrimodalError: the configuration, the data or the run directory cannot be used.
    """
    accelerator = Accelerator(
        mixed_precision="bf16" if config.training.precision == "bf16" else "no"
    )
    with ExitStack() as stack:
        if accelerator.device.type == "cpu":
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(computing_threads(config.data.num_workers))
        run = RunDirectory(Path(config.run_dir))
        if accelerator.is_main_process:
            stack.enter_context(run)
        try:
            Trainer(config, accelerator, run).fit()
        finally:
            accelerator.end_training()


def build_dataset(config: RunConfig, processor: TrimodalProcessor) -> RowDataset:
    """The training rows with the configured augmentation."""
    positives = (
        config.objectives.contrastive.positives if config.objectives.contrastive else "group"
    )
    return RowDataset(
        read_manifests(config.data.train),
        processor,
        config.data.vision_augment,
        config.data.speech_augment,
        positives,
        int(config.data.cache_gigabytes * 2**30),
    )


def data_fingerprint(config: RunConfig, processor: TrimodalProcessor) -> str:
    """A hash of the bytes of the training manifests and of the tokenizers."""
    total = hashlib.sha256()
    for name, digest in _tokenizer_digests(processor).items():
        total.update(f"{name}:{digest}".encode())
    for path in (*config.data.train, config.data.tokenizer):
        try:
            total.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    return total.hexdigest()


class Trainer:
    """Builds everything from a configuration and runs the steps that are left."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, run: RunDirectory) -> None:
        self.config, self.accelerator, self.run = config, accelerator, run
        ranks = accelerator.num_processes
        if config.training.batch_size % ranks:
            raise ConfigError(
                f"training.batch_size: {config.training.batch_size} samples cannot be shared "
                f"equally by {ranks} processes"
            )
        processor = build_processor(config)
        fingerprint = data_fingerprint(config, processor)
        dataset = build_dataset(config, processor)
        self.held_out = (
            read_manifest(str(config.data.validation)) if config.training.validate_every else []
        )
        self.identity = identity(config, fingerprint)
        checkpoint = load_newest(run.checkpoints)
        if checkpoint is not None:
            check_identity(checkpoint.state["identity"], self.identity, run.path)
        self.step = checkpoint.step if checkpoint else 0
        if self.step > config.training.max_steps:
            raise ConfigError(
                f"training.max_steps: {config.training.max_steps} lie behind the checkpoint of "
                f"step {self.step} in {run.path}"
            )
        self.tokens_seen = int(checkpoint.state["tokens_seen"]) if checkpoint else 0
        set_seed(config.seed)
        model = new_model(config, processor)
        self.optimizer = build_optimizer(model, config.training)
        if checkpoint is not None:
            model.load_state_dict(checkpoint.tensors["model"])
        self.model = accelerator.prepare(model)
        self.bare: TrimodalModel = accelerator.unwrap_model(self.model)
        if checkpoint is not None:
            restore_optimizer(self.optimizer, self.bare, checkpoint.tensors["optimizer"])
        self.feed = StepFeed(dataset, config, accelerator.process_index, ranks)
        self.gradients = StepGradients(accelerator, self.model, config)
        dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
        self.peak = peak_flops(accelerator.device, dtype) * ranks
        self.clock = 0.0
        """When the last step ended; a step's time includes the wait for its data."""

    def fit(self) -> None:
        """Run the steps that are left, saving as configured, then export."""
        settings = self.config.training
        main = self.accelerator.is_main_process
        with ExitStack() as stack:
            reporter = None
            if main:
                self.run.write_config(self.config)
                self.run.cut_metrics(self.step)
                reporter = stack.enter_context(Reporter(self.run, self.config, self.step))
                print(_summary(self.bare, self.feed, self.step, settings.max_steps), flush=True)
            self.model.train()
            self.clock = time.perf_counter()
            for batches in self._loader():
                if isinstance(batches, TrimodalError):
                    raise batches
                metrics = self._train_step(batches)
                if reporter is not None:
                    reporter.step(self.step, metrics | self._validation())
                if self.step % settings.checkpoint_every == 0 or self.step == settings.max_steps:
                    self._save()
        self._export()

    def _loader(self) -> DataLoader[list[Batch] | TrimodalError]:
        workers = self.config.data.num_workers
        return DataLoader(
            self.feed,
            sampler=range(self.step, self.config.training.max_steps),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )

    def _train_step(self, batches: Sequence[Batch]) -> dict[str, float]:
        settings = self.config.training
        rate = learning_rate(self.step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        flops = training_flops(self.bare, batches)
        batches = [to_device(batch, self.accelerator.device) for batch in batches]
        losses = self.gradients(batches, self.step)
        norm = float(
            self.accelerator.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm) or 0.0
        )
        if not (math.isfinite(losses["loss"]) and math.isfinite(norm)):
            raise NumericError(
                f"step {self.step + 1}: the loss is {losses['loss']} and the gradient norm {norm}; "
                "the last checkpoint is unharmed"
            )
        self.optimizer.step()
        self.bare.bound_scale()
        self.optimizer.zero_grad()
        self.step += 1
        own = [float(sum(batch.num_tokens for batch in batches)), flops]
        tokens, flops = sum_over_ranks(own, self.accelerator.device)
        self.tokens_seen += int(tokens)
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        return {
            **losses,
            "learning_rate": rate,
            "grad_norm": norm,
            "logit_scale": float(self.bare.logit_scale.detach().exp()),
            "tokens": tokens,
            "tokens_seen": self.tokens_seen,
            "tokens_per_second": tokens / seconds,
            "mfu": flops / seconds / self.peak,
            "seconds": seconds,
        }

    def _validation(self) -> dict[str, float]:
        """The scores on held-out samples, at the steps that are to have them."""
        every = self.config.training.validate_every
        if not every or (self.step % every and self.step != self.config.training.max_steps):
            return {}
        scores = validate(self.bare, self.held_out, self.config.training.token_budget)
        self.clock = time.perf_counter()
        return scores

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            tensors = {
                "model": self.bare.state_dict(),
                "optimizer": optimizer_tensors(self.optimizer, self.bare),
            }
            state = {"identity": self.identity, "tokens_seen": self.tokens_seen}
            save(
                self.run.checkpoints,
                self.step,
                tensors,
                state,
                self.config.training.keep_checkpoints,
            )
        self.accelerator.wait_for_everyone()

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            written = self.run.path / ".new-model"
            try:
                self.bare.save_pretrained(written)
                self.run.replace_model(written)
            except (OSError, SafetensorError) as error:
                raise StorageError(f"{self.run.model} cannot be written: {error}") from error
            print(f"model written to {self.run.model}", flush=True)
        self.accelerator.wait_for_everyone()


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


def new_model(config: RunConfig, processor: TrimodalProcessor) -> TrimodalModel:
    """A new model, or the weights of `training.init_from`."""
    folder = config.training.init_from
    if folder is None:
        model = TrimodalModel(TrimodalConfig(architecture=to_dict(config.model)))
        contrast = config.objectives.contrastive
        if contrast is not None and contrast.loss == "sigmoid":
            model.start_sigmoid()
    else:
        model = load(folder)
        _check_start(model, config, processor)
    model.processor = processor
    model.config.generates = list(config.objectives.generates)
    return model


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


def _summary(model: TrimodalModel, feed: StepFeed, step: int, total: int) -> str:
    size = sum(p.numel() for p in model.parameters())
    begin = f"resuming after step {step}" if step else "training"
    return f"{begin}: {size / 1e6:.1f} M parameters, {len(feed.dataset)} samples, {total} steps"
