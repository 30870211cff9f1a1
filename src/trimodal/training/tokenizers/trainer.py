"""The training loop of tokenizers and vocoders, in one process.

train(config, ["data/digits/train.jsonl"], "runs/demo/tokenizers/vision_tokenizer")
"""

import hashlib
import json
import math
import shutil
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trimodal.data import read_manifests
from trimodal.data.manifest import manifest_digest
from trimodal.errors import ConfigError, NumericError, StorageError
from trimodal.schema import to_dict
from trimodal.tokenizers.fsq import perplexity, usage
from trimodal.tokenizers.stored import CONFIG, WEIGHTS, fingerprint
from trimodal.training.checkpoint import (
    Checkpoint,
    load_newest,
    optimizer_tensors,
    restore_optimizer,
    save,
)
from trimodal.training.identity import differences
from trimodal.training.optimizer import build_optimizer, learning_rate, parameter_groups
from trimodal.training.run import RunDirectory
from trimodal.training.tokenizers.config import (
    AnyTraining,
    SpeechTokenizerTraining,
    VisionTokenizerTraining,
)
from trimodal.training.tokenizers.discriminator import fooled, hinge
from trimodal.training.tokenizers.reporting import StepReporter
from trimodal.training.tokenizers.speech import SpeechTask
from trimodal.training.tokenizers.task import Task, histogram
from trimodal.training.tokenizers.vision import VisionTask
from trimodal.training.tokenizers.vocoder import VocoderTask

IDENTITY = "training.json"
WINDOW = 50
"""Steps over which the use of the codes is reported."""
FREE = ("cache_gigabytes", "checkpoint_every")
"""What may change when training is resumed."""


def train(config: AnyTraining, data: Sequence[str | Path], out: str | Path) -> bool:
    """Train, or resume what a former process left, and write config.json and model.safetensors.

    Returns:
        False if `out` was finished before, with this configuration and these manifests.

    Raises:
        TrimodalError: the configuration, the data or the folder cannot be used.
    """
    with RunDirectory(Path(out)) as run:
        now = _identity(config, data)
        _check_identity(run.path, now)
        if (run.path / WEIGHTS).is_file() and (run.path / CONFIG).is_file():
            return False
        rows = read_manifests(data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            task = build_task(config, rows)
            task.module.to("cuda" if torch.cuda.is_available() else "cpu")
            trainer = Trainer(task, run)
        _write_identity(run.path, now)
        trainer.fit()
        task.complete().save(run.path)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    return True


def build_task(config: AnyTraining, rows: Sequence[Any]) -> Task[Any]:
    """The task of a configuration, with a new module."""
    if isinstance(config, VisionTokenizerTraining):
        return VisionTask(config, rows)
    if isinstance(config, SpeechTokenizerTraining):
        return SpeechTask(config, rows)
    return VocoderTask(config, rows)


class Trainer:
    """Runs the steps that are left of a task."""

    def __init__(self, task: Task[Any], run: RunDirectory) -> None:
        self.task, self.run = task, run
        self.schedule = task.schedule.as_training()
        self.optimizer = build_optimizer(task.module, self.schedule)
        self.discriminator: nn.Module | None = None
        self.judge: torch.optim.AdamW | None = None
        if task.adversarial.weight > 0:
            self.discriminator = task.discriminator().to(task.device)
            groups = parameter_groups(self.discriminator, self.schedule.weight_decay)
            rate = task.adversarial.learning_rate
            self.judge = torch.optim.AdamW(groups, lr=rate, betas=(0.5, 0.9))
        self.step = 0
        self._recent: deque[Tensor] = deque(maxlen=WINDOW)
        checkpoint = load_newest(run.checkpoints)
        if checkpoint is not None:
            self._restore(checkpoint)

    def fit(self) -> None:
        """Train to the last step.

        Raises:
            NumericError: a loss or a gradient is not finite.
        """
        total = self.schedule.max_steps
        self.run.cut(self.step)
        self.task.module.train()
        with StepReporter(self.run.metrics, total, self.step) as reporter:
            while self.step < total:
                metrics = self.train_step()
                self.step += 1
                reporter.step(self.step, metrics)
                if self.step % self.schedule.checkpoint_every == 0 and self.step < total:
                    self.save()

    def train_step(self) -> dict[str, float]:
        """One step of the optimizer, and of the discriminator's if it is time for it."""
        module, rate = self.task.module, learning_rate(self.step, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        sums: dict[str, float] = {}
        pairs: list[tuple[float, Tensor, Tensor]] = []
        codes = torch.zeros(self.task.num_codes, dtype=torch.int64)
        for outcome in self.task.outcomes(self.step):
            loss = outcome.loss
            metrics = {"loss": float(loss.detach()), **outcome.metrics}
            if (judge := self._active()) is not None:
                against = fooled(judge(outcome.fake))
                loss = loss + self.task.adversarial.weight * against
                metrics["adversarial"] = float(against.detach())
                pairs.append((outcome.share, outcome.real, outcome.fake.detach()))
            (outcome.share * loss).backward()
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + outcome.share * value
            if outcome.codes is not None:
                codes += histogram(outcome.codes, self.task.num_codes)
        norm = float(nn.utils.clip_grad_norm_(module.parameters(), self.schedule.max_grad_norm))
        if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
            raise NumericError(f"step {self.step + 1}: the loss or its gradient is not finite")
        self.optimizer.step()
        if pairs:
            sums["discriminator"] = self._judge(pairs)
        return self._reported(sums, codes) | {"gradient_norm": norm, "learning_rate": rate}

    def _active(self) -> nn.Module | None:
        return self.discriminator if self.step >= self.task.adversarial.start_step else None

    def _judge(self, pairs: Sequence[tuple[float, Tensor, Tensor]]) -> float:
        """A step of the discriminator; what the generator's loss left in its gradients goes."""
        assert self.discriminator is not None and self.judge is not None  # noqa: S101, PT018
        self.judge.zero_grad()
        total = 0.0
        for share, real, fake in pairs:
            loss = share * hinge(self.discriminator(real), self.discriminator(fake))
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.discriminator.parameters(), self.schedule.max_grad_norm)
        self.judge.step()
        return total

    def _reported(self, sums: dict[str, float], codes: Tensor) -> dict[str, float]:
        own = ("loss", "adversarial", "discriminator")
        reported = {key: sums[key] for key in own if key in sums}
        reported |= self.task.metrics({k: v for k, v in sums.items() if k not in own})
        if self.task.num_codes:
            self._recent.append(codes)
            window = torch.stack(tuple(self._recent)).sum(0)
            reported |= {"usage": usage(window), "perplexity": perplexity(window)}
        return reported

    def save(self) -> None:
        """Write a checkpoint, from which the run goes on as if nothing had happened."""
        tensors = {
            "module": self.task.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.task.module),
        }
        if self.discriminator is not None and self.judge is not None:
            tensors["discriminator"] = self.discriminator.state_dict()
            tensors["judge"] = optimizer_tensors(self.judge, self.discriminator)
        save(self.run.checkpoints, self.step, tensors, {}, keep=1)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        self.task.module.load_state_dict(checkpoint.tensors["module"])
        restore_optimizer(self.optimizer, self.task.module, checkpoint.tensors["optimizer"])
        if self.discriminator is not None and self.judge is not None:
            self.discriminator.load_state_dict(checkpoint.tensors["discriminator"])
            restore_optimizer(self.judge, self.discriminator, checkpoint.tensors["judge"])


def _identity(config: AnyTraining, data: Sequence[str | Path]) -> dict[str, Any]:
    """What has to stay the same for training to be resumed or to count as finished."""
    total = hashlib.sha256()
    for path in data:
        total.update(bytes.fromhex(manifest_digest(path)))
    tree = to_dict(config)
    tree["training"] = {k: v for k, v in tree["training"].items() if k not in FREE}
    tree = {k: v for k, v in tree.items() if k not in FREE}
    if tree.get("tokenizer") and isinstance(tree["tokenizer"], str):
        from trimodal.tokenizers.speech import load_speech_tokenizer

        tree["tokenizer"] = fingerprint(load_speech_tokenizer(tree["tokenizer"]))
    return {"what": type(config).__name__, **tree, "data": total.hexdigest()}


def _check_identity(out: Path, now: dict[str, Any]) -> None:
    path = out / IDENTITY
    if not path.exists():
        if (out / WEIGHTS).exists() or (out / CONFIG).exists():
            raise ConfigError(f"--out {out} holds a {CONFIG} that was not trained here")
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged; remove {out} to start over") from error
    changed = differences(saved, now)
    if changed:
        raise ConfigError(
            f"{out} was trained otherwise: {changed}. Use another --out to start anew"
        )


def _write_identity(out: Path, now: dict[str, Any]) -> None:
    path = out / IDENTITY
    try:
        path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
