"""The training loop.

train(load_config("configs/demo.yaml"))
"""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed

from trimodal.batch import Batch, to_device
from trimodal.config import RunConfig
from trimodal.data import read_manifest
from trimodal.errors import ConfigError, DataError, NumericError, StoppedError
from trimodal.models import TrimodalModel
from trimodal.streams import digest
from trimodal.training.averaging import WeightAverage
from trimodal.training.building import (
    build_dataset,
    build_processor,
    classes,
    data_fingerprint,
    new_model,
    set_up_blocks,
)
from trimodal.training.checkpoint import (
    Checkpoint,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
)
from trimodal.training.codebooks import CodebookUsage
from trimodal.training.distributed import (
    by_rank,
    check_finite,
    check_launch,
    check_replicas,
    check_same,
    lost_ranks,
    of_main_rank,
    settle,
    sum_over_ranks,
)
from trimodal.training.exporting import write_model
from trimodal.training.feed import StepFeed
from trimodal.training.gradients import StepGradients
from trimodal.training.guard import Guard, Verdict
from trimodal.training.identity import NEEDED, check_identity, identity
from trimodal.training.loading import load_steps
from trimodal.training.norms import GradientNorms
from trimodal.training.optimizer import build_optimizer, learning_rate, set_rate
from trimodal.training.padding import padding
from trimodal.training.parts import WHOLE, Part
from trimodal.training.reporting import Reporter
from trimodal.training.run import RunDirectory
from trimodal.training.sampling import COUNT, write_samples
from trimodal.training.saver import Saver
from trimodal.training.sharding import gathered, is_sharded, own, prepare, restore_weights, whole
from trimodal.training.signals import StopRequest
from trimodal.training.throughput import computing_threads, peak_flops, training_flops
from trimodal.training.validation import validate
from trimodal.training.watchdog import Watchdog
from trimodal_kernels.dispatch import chosen

MARGIN = 60.0
"""Seconds that ranks wait for each other beyond the longest step, whose end shows the stacks."""
ANY = timedelta(days=365)
"""What they wait where a step may take any time."""


def train(config: RunConfig) -> None:
    """Train, or resume what a former process left, and export the model.

    Raises:
        TrimodalError: the configuration, the data or the run directory cannot be used.
    """
    check_launch()
    with StopRequest() as stop, ExitStack() as stack:
        accelerator = Accelerator(
            mixed_precision="bf16" if config.training.precision == "bf16" else "no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_patience(config))],
        )
        if accelerator.device.type == "cpu":
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(computing_threads(config.data.num_workers))
        run = RunDirectory(Path(config.run_dir))
        if accelerator.is_main_process:
            stack.enter_context(run)
        try:
            with lost_ranks():
                Trainer(config, accelerator, run).fit(stop)
        finally:
            settle()
            accelerator.end_training()


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
            read_manifest(str(config.data.validation))
            if config.training.validate_every or config.training.sample_every
            else []
        )
        self.identity = identity(config, fingerprint)
        checkpoint = load_newest(run.checkpoints, NEEDED)
        if checkpoint is not None:
            check_identity(checkpoint.state["identity"], self.identity, run.path)
        self.step = checkpoint.step if checkpoint else 0
        check_same(
            {"data": fingerprint, "configuration": self.identity, "checkpoint": self.step},
            accelerator.device,
        )
        if self.step > config.training.max_steps:
            raise ConfigError(
                f"training.max_steps: {config.training.max_steps} lie behind the checkpoint of "
                f"step {self.step} in {run.path}"
            )
        self.tokens_seen = int(checkpoint.state["tokens_seen"]) if checkpoint else 0
        self.skipped = int(checkpoint.state.get("skipped", 0)) if checkpoint else 0
        """Samples and targets that were left out, see `data.tolerance`."""
        self.guard = Guard(config.training)
        set_seed(config.seed)
        model = new_model(config, processor, checkpoint and checkpoint.state, dataset)
        set_up_blocks(model, config.training)
        self.model = prepare(accelerator, model)
        self.bare: TrimodalModel = accelerator.unwrap_model(self.model)
        self.optimizer = build_optimizer(self.bare, config.training)
        self.average = WeightAverage(self.bare, config.training.ema)
        self.codebooks = CodebookUsage(config, processor, accelerator.device)
        self.part = self._part()
        self.saver = Saver(run.checkpoints, config.training.keep_checkpoints, self.part or WHOLE)
        if checkpoint is not None:
            self._resume(checkpoint)
        self.feed = StepFeed(
            dataset, config, accelerator.process_index, ranks, chosen(accelerator.device)
        )
        self.gradients = StepGradients(accelerator, self.model, config)
        self.norms = GradientNorms(accelerator, self.model)
        self.clock = 0.0
        """When the last step ended; a step's time includes the wait for its data."""

    @cached_property
    def peak(self) -> float:
        """Operations a second of all ranks' devices."""
        dtype = torch.bfloat16 if self.config.training.precision == "bf16" else torch.float32
        return peak_flops(self.accelerator.device, dtype) * self.accelerator.num_processes

    def _part(self) -> Part | None:
        """What this rank writes of a checkpoint; None if that is nothing."""
        if is_sharded(self.bare):
            now = of_main_rank(time.time_ns(), self.accelerator.device)
            return Part(self.accelerator.process_index, self.accelerator.num_processes, f"{now:x}")
        return WHOLE if self.accelerator.is_main_process else None

    def _load(self, checkpoint: Checkpoint) -> None:
        restore_weights(self.bare, checkpoint.tensors["model"])
        restore_optimizer(self.optimizer, self.bare, checkpoint.tensors["optimizer"])
        self.average.restore(checkpoint.tensors)

    def _resume(self, checkpoint: Checkpoint) -> None:
        self._load(checkpoint)
        self.codebooks.restore(checkpoint.tensors)
        # checkpoints of before have neither
        if "guard" in checkpoint.state:
            self.guard.restore(checkpoint.state["guard"])
        now = self.config.training.max_steps
        before = checkpoint.state.get("max_steps", now)
        if before != now:
            self._say(
                f"the learning rate follows a schedule of {now} steps from here on; it was {before}"
            )

    def fit(self, stop: StopRequest) -> None:
        """Run the steps that are left, saving as configured, then export.

        Raises:
            StoppedError: a signal asked for it, and what was done is saved; or loader processes
                were lost too often.
        """
        settings = self.config.training
        with ExitStack() as stack:
            reporter = None
            if self.accelerator.is_main_process:
                self.run.write_config(self.config)
                self.run.cut(self.step)
                reporter = stack.enter_context(Reporter(self.run, self.config, self.step))
                print(_summary(self.bare, self.feed, self.step, settings.max_steps), flush=True)
            watchdog = stack.enter_context(Watchdog(settings.watchdog_seconds))
            self.saver = stack.enter_context(self.saver)
            self.model.train()
            self.clock = time.perf_counter()
            for batches in load_steps(self.feed, self.step, settings.max_steps, self.config.data):
                stop.begin()
                outcome = self._train_step(batches, stop)
                stops = outcome.stops and self.step < settings.max_steps
                # whoever asks for a stop may not wait that long
                scores = {} if stops else self._validation()
                if reporter is not None:
                    reporter.step(self.step, outcome.metrics | scores, outcome.trace)
                if stops:
                    self._stop(stop.name)
                self._sample(reporter)
                if self._is_due(settings.checkpoint_every):
                    self._save()
                self.saver.check()
                watchdog.step()
            stop.begin()  # also where no step is left
            self._settle_saves()
        self._export()

    def _stop(self, name: str) -> NoReturn:
        """Save and end, together: a launcher ends all ranks once one of them is gone."""
        self._save()
        self._settle_saves()
        raise StoppedError(
            f"stopped by {name or 'a signal to another rank'} after step {self.step}, which is "
            "saved; the same command goes on from there"
        )

    def _settle_saves(self) -> None:
        """Until the checkpoint that was begun is in place, for all ranks.

        The first one waits for the others where they would notice that one of them is gone, and
        not for its part of the files.

        Raises:
            StorageError: it could not be written.
        """
        if not self.accelerator.is_main_process:
            self.saver.wait()
        self.accelerator.wait_for_everyone()
        self.saver.wait()
        self.accelerator.wait_for_everyone()

    def _train_step(self, on_cpu: Sequence[Batch], stop: StopRequest) -> "_Outcome":
        settings = self.config.training
        rate = learning_rate(self.step, settings)
        set_rate(self.optimizer, rate)
        flops = training_flops(self.bare, on_cpu)
        batches = [to_device(batch, self.accelerator.device) for batch in on_cpu]
        losses = self.gradients(batches)
        padded = map(float, padding(on_cpu, self.gradients.added))
        norm = self.norms.clip(settings.max_grad_norm)
        # what ranks must agree on goes with what is counted: one collective for all of it
        own = [
            float(sum(batch.num_tokens for batch in batches)),
            flops,
            float(not math.isfinite(losses["loss"] + norm)),
            float(bool(stop.name)),
            float(sum(_mark(name) for batch in batches for name in batch.ids)),
            float(sum(len(batch.skipped) for batch in batches)),
            *padded,
            *self.norms.squares,
            *by_rank(sum(batch.num_tokens for batch in batches)),
        ]
        tokens, flops, broken, stops, samples, skipped, empty, held, *rest = sum_over_ranks(
            own, self.accelerator.device
        )
        squares, each = rest[: len(self.norms.squares)], rest[len(self.norms.squares) :]
        self._count_skipped(batches, int(skipped))
        self._update(math.nan if broken else losses["loss"], norm)
        self.step += 1
        self.tokens_seen += int(tokens)
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        metrics = {
            **losses,
            **self.codebooks(batches),
            "learning_rate": rate,
            "grad_norm": norm,
            **self.norms.named(squares),
            "logit_scale": float(whole(self.bare.logit_scale.detach()).exp()),
            "tokens": tokens,
            "tokens_seen": self.tokens_seen,
            "padding": empty / max(1.0, empty + held),
            **({"imbalance": len(each) * max(each) / max(1.0, tokens) - 1} if each[1:] else {}),
            **({"skipped": self.skipped} if self.config.data.tolerance else {}),
            "tokens_per_second": tokens / seconds,
            "mfu": flops / seconds / self.peak,
            "seconds": seconds,
        }
        trace = f"{losses['loss'].hex()} {norm.hex()} {int(samples):x}"
        return _Outcome(metrics, trace, bool(stops))

    def _count_skipped(self, batches: Sequence[Batch], skipped: int) -> None:
        """Note what is left out of this step.

        Raises:
            DataError: it is more than is tolerated.
        """
        causes = [cause for batch in batches for cause in batch.skipped]
        self.run.note_skipped(self.step + 1, causes)
        self.skipped += skipped
        seen = (self.step + 1) * self.config.training.batch_size
        # the first few samples say little about a share
        if self.skipped > self.config.data.tolerance * max(seen, len(self.feed.dataset)):
            last = f"; the last one: {causes[-1]}" if causes else ""
            raise DataError(
                f"{self.skipped} of {seen} samples cannot be used, more than data.tolerance "
                f"{self.config.data.tolerance:g}, see {self.run.skipped}{last}"
            )

    def _update(self, loss: float, norm: float) -> None:
        """Take a step of the optimizer, unless what it would go by cannot be trusted.

        Raises:
            NumericError: steps are not finite, and there is nothing to go back to.
        """
        verdict = self.guard.judge(loss, norm)
        if verdict is Verdict.APPLY:
            self.optimizer.step()
            self.bare.bound_scale()
            self.average.update()
        else:
            self._say(
                f"step {self.step + 1} is left out: loss {loss:.4g}, gradient norm {norm:.4g}"
            )
        self.optimizer.zero_grad()
        if verdict is Verdict.RELOAD:
            self._settle_saves()  # so that every rank finds the same one
            checkpoint = load_newest(self.run.checkpoints, NEEDED)
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

    def _is_due(self, every: int) -> bool:
        """Whether this step is one of those, or the last."""
        last = self.step == self.config.training.max_steps
        return bool(every) and (self.step % every == 0 or last)

    def _sample(self, reporter: Reporter | None) -> None:
        """Write what the model makes of held-out rows, at the steps that are to have it."""
        if not self._is_due(self.config.training.sample_every):
            return
        with self.average.applied(), self._uncompiled():
            model = gathered(self.bare, reporter is not None)
            if reporter is not None and model is not None:
                folder = self.run.path / "samples" / f"step-{self.step:08d}"
                for one in write_samples(model, self.held_out[:COUNT], folder):
                    reporter.sample(self.step, one, model.sample_rate)
        self.clock = time.perf_counter()

    def _validation(self) -> dict[str, float]:
        """The scores on held-out samples, on the main rank at the steps that are to have them."""
        main = self.accelerator.is_main_process
        if not self._is_due(self.config.training.validate_every):
            return {}
        with self.average.applied(), self._uncompiled():
            model = gathered(self.bare, main)
            if model is None or not main:
                return {}
            scores = validate(model, self.held_out, self.config.training.token_budget)
        self.clock = time.perf_counter()
        return scores

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """What is compiled for training is not what inference mode computes with."""
        if self.config.training.compile:
            return torch.compiler.set_stance("force_eager")
        return nullcontext()

    def _save(self) -> None:
        check_replicas(self.bare, self.accelerator.device)
        tensors = {
            "model": {name: own(x) for name, x in self.bare.state_dict().items()},
            "optimizer": optimizer_tensors(self.optimizer, self.bare),
            **self.average.tensors(),
        }
        check_finite(tensors, self.accelerator.device)
        self.guard.saved()
        if self.part is not None:
            # every rank has the same counts
            tensors |= self.codebooks.tensors() if self.part.rank == 0 else {}
            state = {
                "identity": self.identity,
                "tokens_seen": self.tokens_seen,
                "skipped": self.skipped,
                "guard": self.guard.state(),
                "classes": classes(self.bare),
                "answers": self.bare.config.answers,
                "max_steps": self.config.training.max_steps,
            }
            self.saver.save(self.step, tensors, state)

    def _export(self) -> None:
        main = self.accelerator.is_main_process
        with self.average.applied():
            model = gathered(self.bare, main)
            if model is not None and main:
                write_model(model, self.run.model)
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


def _patience(config: RunConfig) -> timedelta:
    """How long ranks wait for one that validates, samples or is gone."""
    seconds = config.training.watchdog_seconds
    return timedelta(seconds=seconds + MARGIN) if seconds else ANY


def _mark(name: str) -> int:
    """40 bits of a sample, so that a sum of thousands of them is exact in a double."""
    return digest(name) >> 24


def _summary(model: TrimodalModel, feed: StepFeed, step: int, total: int) -> str:
    size = sum(p.numel() for p in model.parameters())
    begin = f"resuming after step {step}" if step else "training"
    return f"{begin}: {size / 1e6:.1f} M parameters, {len(feed.dataset)} samples, {total} steps"
