"""The training loop of tokenizers and vocoders, in one process.

train(config, ["data/digits/train.jsonl"], "runs/demo/tokenizers/vision_tokenizer")
"""

import hashlib
import json
import math
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

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
from trimodal.training.distributed import check_finite
from trimodal.training.guard import Guard, Verdict
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
CODES = "codes"
"""Of the checkpoint's file that holds them."""
OWN = ("loss", "adversarial", "discriminator")
"""What the trainer itself reports of a step; the rest is the task's."""
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


@dataclass
class _Computed:
    """What a step goes by, before anything is taken of it."""

    sums: dict[str, float] = field(default_factory=dict)
    """Means over the step's media, by name."""
    norm: float = math.nan
    """Of the gradient."""
    codes: Tensor | None = None
    """(size,) int64, how often each code occurred."""
    judged: bool = False
    """Whether the discriminator has gradients too."""

    @property
    def loss(self) -> float:
        """Finite if all losses are."""
        own = [self.sums[key] for key in OWN if key in self.sums]
        return self.sums["loss"] if all(map(math.isfinite, own)) else math.nan


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
        self.guard = Guard(self.schedule)
        self._recent: deque[Tensor] = deque(maxlen=WINDOW)
        checkpoint = load_newest(run.checkpoints)
        if checkpoint is not None:
            self._resume(checkpoint)

    def fit(self) -> None:
        """Train to the last step.

        Raises:
            NumericError: steps are not finite, and there is nothing to go back to; or weights or
                moments are not, which are not saved.
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
        check_finite(self._tensors(), self.task.device)

    def train_step(self) -> dict[str, float]:
        """One step of the optimizer, and of the discriminator's if it is time for it.

        Of a step whose losses or gradients are not finite nothing is taken.

        Raises:
            NumericError: steps are not finite, and there is nothing to go back to.
        """
        rate = learning_rate(self.step, self.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        computed = self._gradients()
        verdict = self.guard.judge(computed.loss, computed.norm)
        metrics = {"loss": computed.loss}
        if verdict is Verdict.APPLY:
            self.optimizer.step()
            if computed.judged and self.judge is not None:
                self.judge.step()
            metrics = self._reported(computed)
        else:
            self._leave_out(computed, verdict)
        return metrics | {"gradient_norm": computed.norm, "learning_rate": rate}

    def _gradients(self) -> _Computed:
        """Leave the gradients of a step, of both modules, or end at the first loss of no use."""
        self.optimizer.zero_grad()
        computed = _Computed()
        sums = computed.sums
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
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + outcome.share * value
            if not math.isfinite(computed.loss):
                return computed  # its codes are no codes either
            (outcome.share * loss).backward()
            if outcome.codes is not None:
                codes += histogram(outcome.codes, self.task.num_codes)
        computed.codes = codes
        parameters = self.task.module.parameters()
        computed.norm = float(nn.utils.clip_grad_norm_(parameters, self.schedule.max_grad_norm))
        if pairs and math.isfinite(computed.norm):
            computed.judged = True
            sums["discriminator"], norm = self._judge(pairs)
            if not math.isfinite(norm):
                computed.norm = norm
        return computed

    def _active(self) -> nn.Module | None:
        return self.discriminator if self.step >= self.task.adversarial.start_step else None

    def _judge(self, pairs: Sequence[tuple[float, Tensor, Tensor]]) -> tuple[float, float]:
        """The discriminator's loss and the norm of its gradient, which it is left with.

        What the generator's loss left in its gradients goes.
        """
        assert self.discriminator is not None and self.judge is not None  # noqa: S101, PT018
        self.judge.zero_grad()
        total = 0.0
        for share, real, fake in pairs:
            loss = share * hinge(self.discriminator(real), self.discriminator(fake))
            loss.backward()
            total += float(loss.detach())
        parameters = self.discriminator.parameters()
        return total, float(nn.utils.clip_grad_norm_(parameters, self.schedule.max_grad_norm))

    def _reported(self, computed: _Computed) -> dict[str, float]:
        sums = computed.sums
        reported = {key: sums[key] for key in OWN if key in sums}
        reported |= self.task.metrics({k: v for k, v in sums.items() if k not in OWN})
        if self.task.num_codes and computed.codes is not None:
            self._recent.append(computed.codes)
            window = torch.stack(tuple(self._recent)).sum(0)
            reported |= {"usage": usage(window), "perplexity": perplexity(window)}
        return reported

    def _leave_out(self, computed: _Computed, verdict: Verdict) -> None:
        """Say that a step is, and go back to the last checkpoint if the guard asks for it.

        Raises:
            NumericError: there is none.
        """
        step, loss, norm = self.step + 1, computed.sums["loss"], computed.norm
        _say(f"step {step} is left out: loss {loss:.4g}, gradient norm {norm:.4g}")
        if verdict is not Verdict.RELOAD:
            return
        checkpoint = load_newest(self.run.checkpoints)
        if checkpoint is None:
            raise NumericError(
                f"step {step}: the loss is {loss} and the gradient norm {norm}, as in the steps "
                "before it, and there is no checkpoint to go back to"
            )
        self._load(checkpoint)
        _say(f"the weights are those of step {checkpoint.step} again; no data are repeated")

    def save(self) -> None:
        """Write a checkpoint, from which the run goes on as if nothing had happened.

        Raises:
            NumericError: what would be saved is not finite; the checkpoint before is as it was.
            StorageError: it cannot be written.
        """
        tensors = self._tensors()
        check_finite(tensors, self.task.device)
        self.guard.saved()
        if self._recent:
            tensors[CODES] = {CODES: torch.stack(tuple(self._recent))}
        save(self.run.checkpoints, self.step, tensors, {"guard": self.guard.state()}, keep=1)

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """All that is trained, by the checkpoint's files."""
        tensors = {
            "module": self.task.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.task.module),
        }
        if self.discriminator is not None and self.judge is not None:
            tensors["discriminator"] = self.discriminator.state_dict()
            tensors["judge"] = optimizer_tensors(self.judge, self.discriminator)
        return tensors

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        self._load(checkpoint)
        # checkpoints of before have neither
        if "guard" in checkpoint.state:
            self.guard.restore(checkpoint.state["guard"])
        if CODES in checkpoint.tensors:
            self._recent.extend(checkpoint.tensors[CODES][CODES])

    def _load(self, checkpoint: Checkpoint) -> None:
        """Take the weights and the moments of a checkpoint."""
        self.task.module.load_state_dict(checkpoint.tensors["module"])
        restore_optimizer(self.optimizer, self.task.module, checkpoint.tensors["optimizer"])
        if self.discriminator is not None and self.judge is not None:
            self.discriminator.load_state_dict(checkpoint.tensors["discriminator"])
            restore_optimizer(self.judge, self.discriminator, checkpoint.tensors["judge"])


def _say(text: str) -> None:
    tqdm.write(f"trimodal: {text}", file=sys.stderr)


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
