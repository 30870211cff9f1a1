"""What has to stay the same for a run to be resumed, and what may change.

check_identity(saved, identity(config, fingerprint), run_dir)
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trimodal.config import RunConfig, TrainingConfig
from trimodal.errors import ConfigError
from trimodal.schema import flat, to_dict

FREE = frozenset({
    "run_dir",
    # the fingerprint stands for what these hold
    "data.train",
    "data.tokenizer",
    "data.tokenizers",
    "data.validation",
    "data.test",
    "data.cache_gigabytes",
    "data.num_workers",
    "data.loader_seconds",
    "data.tolerance",
    "training.max_steps",
    "training.token_budget",
    "training.checkpoint_every",
    "training.validate_every",
    "training.sample_every",
    "training.keep_checkpoints",
    "training.init_from",
    "training.start_from",
    "training.trackers",
    "training.activation_checkpointing",
    "training.compile",
    "training.watchdog_seconds",
})  # fmt: skip
"""Keys that decide where a run reads, how fast it goes, what it says and when it ends."""
FIXED = (
    "seed",
    "data.mixture",
    "data.vision_augment",
    "data.speech_augment",
    "model",
    "objectives",
    "training.batch_size",
    "training.learning_rate",
    "training.min_learning_rate",
    "training.warmup_steps",
    "training.weight_decay",
    "training.optimizer",
    "training.betas",
    "training.max_grad_norm",
    "training.precision",
    "training.spike",
    "training.ema",
    "training.learning_rate_scale",
    "training.layer_decay",
    "training.frozen",
    "training.unlocked",
)
"""Keys, with all below them, that decide what a step computes."""


def identity(config: RunConfig, fingerprint: str) -> dict[str, Any]:
    """The values of all keys that are fixed, and of what the data are."""
    tree = flat(to_dict(config))
    return {"data": fingerprint, **{k: v for k, v in tree.items() if not is_free(k)}}


def is_free(key: str) -> bool:
    """Whether a key, or one that it is below, may change."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse to resume a run that is another one.

    Keys of `training` that did not exist when the checkpoint was written had their defaults.

    Raises:
        ConfigError: names each key that differs and both of its values.
    """
    before, after = _completed(flat(saved)), flat(now)
    changed = _named(before, after, (k for k in before if k not in after or before[k] != after[k]))
    if changed:
        raise ConfigError(
            f"{run_dir} cannot be resumed: {changed}. Use another run_dir to start anew"
        )


def _completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The values by dotted keys, with the defaults of keys that are newer."""
    defaults = flat({"training": to_dict(TrainingConfig())})
    known = {key[:end] for key in saved for end, c in enumerate(f"{key}.") if c == "."}
    newer = {k: v for k, v in defaults.items() if k not in known and not is_free(k)}
    return {**newer, **saved}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first few keys at which two trees differ, with both values; empty if none does."""
    before, after = flat(saved), flat(now)
    return _named(before, after, (k for k in {**before, **after} if before.get(k) != after.get(k)))


def _named(before: Mapping[str, Any], after: Mapping[str, Any], changed: Iterable[str]) -> str:
    named = [f"{k} was {before.get(k)}, is {after.get(k, 'something else')}" for k in changed]
    return "; ".join(named[:4])
