"""The training loop.

train(load_config("configs/demo.yaml"))
"""

import hashlib
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from trimodal.errors import (
    ConfigError,
    NumericError,
    StoppedError,
    StorageError,
    TrimodalError,
)
from trimodal.models import TrimodalConfig, TrimodalModel, load
from trimodal.processors import TextProcessor, TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.streams import digest
from trimodal.tokenizers import Tokenizers
from trimodal.training.checkpoint import (
    Checkpoint,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
)
from trimodal.training.distributed import check_replicas, sum_over_ranks
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.guard import Guard, Verdict
from trimodal.training.identity import check_identity, differences, identity
from trimodal.training.optimizer import build_optimizer, learning_rate
from trimodal.training.reporting import Reporter
from trimodal.training.run import RunDirectory
from trimodal.training.saver import Saver
from trimodal.training.signals import StopRequest, follow_parent
from trimodal.training.throughput import computing_threads, peak_flops, training_flops
from trimodal.training.validation import validate
from trimodal.training.watchdog import Watchdog
from trimodal.vocabulary import Vocabulary
from trimodal_kernels.dispatch import chosen


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
    for name, known in _tokenizer_digests(processor).items():
        total.update(f"{name}:{known}".encode())
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
        self.saver = Saver(run.checkpoints, config.training.keep_checkpoints)
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
        self.guard = Guard(config.training)
        if checkpoint is not None and "guard" in checkpoint.state:
            self.guard.restore(checkpoint.state["guard"])
        set_seed(config.seed)
        model = new_model(config, processor)
        self.optimizer = build_optimizer(model, config.training)
        self.model = accelerator.prepare(model)
        self.bare: TrimodalModel = accelerator.unwrap_model(self.model)
        if checkpoint is not None:
            self._load(checkpoint)
        way = chosen(accelerator.device)
        self.feed = StepFeed(dataset, config, accelerator.process_index, ranks, way)
        self.gradients = StepGradients(accelerator, self.model, config)
        dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
        self.peak = peak_flops(accelerator.device, dtype) * ranks
        self.clock = 0.0
        """When the last step ended; a step's time includes the wait for its data."""

    def _load(self, checkpoint: Checkpoint) -> None:
        self.bare.load_state_dict(checkpoint.tensors["model"])
        restore_optimizer(self.optimizer, self.bare, checkpoint.tensors["optimizer"])

    def fit(self) -> None:
        """Run the steps that are left, saving as configured, then export.

        Raises:
            StoppedError: a signal asked for it; what was done is saved.
        """
        settings = self.config.training
        with ExitStack() as stack:
            reporter = None
            if self.accelerator.is_main_process:
                self.run.write_config(self.config)
                self.run.cut_metrics(self.step)
                reporter = stack.enter_context(Reporter(self.run, self.config, self.step))
                print(_summary(self.bare, self.feed, self.step, settings.max_steps), flush=True)
            stop = stack.enter_context(StopRequest())
            watchdog = stack.enter_context(Watchdog(settings.watchdog_seconds))
            self.saver = stack.enter_context(Saver(self.run.checkpoints, settings.keep_checkpoints))
            self.model.train()
            self.clock = time.perf_counter()
            for batches in self._loader():
                if isinstance(batches, TrimodalError):
                    raise batches
                outcome = self._train_step(batches, stop)
                if reporter is not None:
                    reporter.step(self.step, outcome.metrics | self._validation(), outcome.trace)
                if (
                    outcome.stops
                    or self.step % settings.checkpoint_every == 0
                    or self.step == settings.max_steps
                ):
                    self._save()
                if outcome.stops and self.step < settings.max_steps:
                    self.saver.wait()
                    raise StoppedError(
                        f"stopped by {stop.name or 'a signal to another rank'} after step "
                        f"{self.step}, which is saved; the same command goes on from there"
                    )
                self.saver.check()
                watchdog.step()
        self._export()

    def _loader(self) -> DataLoader[list[Batch] | TrimodalError]:
        workers = self.config.data.num_workers
        return DataLoader(
            self.feed,
            sampler=range(self.step, self.config.training.max_steps),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=follow_parent if workers else None,
        )

    def _train_step(self, batches: Sequence[Batch], stop: StopRequest) -> "_Outcome":
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
        # what ranks must agree on goes with what is counted: one collective for all of it
        own = [
            float(sum(batch.num_tokens for batch in batches)),
            flops,
            float(not math.isfinite(losses["loss"] + norm)),
            float(bool(stop.name)),
            float(sum(_mark(name) for batch in batches for name in batch.ids)),
        ]
        tokens, flops, broken, stops, samples = sum_over_ranks(own, self.accelerator.device)
        self._update(math.nan if broken else losses["loss"], norm)
        self.step += 1
        self.tokens_seen += int(tokens)
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        metrics = {
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
        trace = f"{losses['loss'].hex()} {norm.hex()} {int(samples):x}"
        return _Outcome(metrics, trace, bool(stops))

    def _update(self, loss: float, norm: float) -> None:
        """Take a step of the optimizer, unless what it would go by cannot be trusted.

        Raises:
            NumericError: steps are not finite, and there is nothing to go back to.
        """
        verdict = self.guard.judge(loss, norm)
        if verdict is Verdict.APPLY:
            self.optimizer.step()
            self.bare.bound_scale()
        else:
            self._say(
                f"step {self.step + 1} is left out: loss {loss:.4g}, gradient norm {norm:.4g}"
            )
        self.optimizer.zero_grad()
        if verdict is Verdict.RELOAD:
            self.saver.wait()
            self.accelerator.wait_for_everyone()  # so that every rank finds the same one
            checkpoint = load_newest(self.run.checkpoints)
            if checkpoint is None:
                raise NumericError(
                    f"step {self.step + 1}: the loss is {loss} and the gradient norm {norm}, as "
                    "in the steps before it, and there is no checkpoint to go back to"
                )
            self._load(checkpoint)
            self._say(
                f"the weights are those of step {checkpoint.step} again; no data are repeated"
            )

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(f"trimodal: {text}", file=sys.stderr, flush=True)

    def _validation(self) -> dict[str, float]:
        """The scores on held-out samples, at the steps that are to have them."""
        every = self.config.training.validate_every
        if not every or (self.step % every and self.step != self.config.training.max_steps):
            return {}
        scores = validate(self.bare, self.held_out, self.config.training.token_budget)
        self.clock = time.perf_counter()
        return scores

    def _save(self) -> None:
        check_replicas(self.bare, self.accelerator.device)
        self.guard.saved()
        if self.accelerator.is_main_process:
            tensors = {
                "model": self.bare.state_dict(),
                "optimizer": optimizer_tensors(self.optimizer, self.bare),
            }
            state = {
                "identity": self.identity,
                "tokens_seen": self.tokens_seen,
                "guard": self.guard.state(),
            }
            self.saver.save(self.step, tensors, state)

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


@dataclass(frozen=True)
class _Outcome:
    """Of a step."""

    metrics: dict[str, float]
    trace: str
    """Loss and gradient norm to the last bit, and a sum over what the samples are called."""
    stops: bool
    """Whether any rank was asked to stop."""


def _mark(name: str) -> int:
    """40 bits of a sample, so that a sum of thousands of them is exact in a double."""
    return digest(name) >> 24


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
