"""What has to stay the same for a run to be resumed, and what may change.

check_identity(saved, identity(config, fingerprint), run_dir)
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trimodal.config import RunConfig
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
    # the schedule of the learning rate spans them; a run that goes on with others says so
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

NEEDED: Mapping[str, type] = {"identity": dict, "tokens_seen": int}
"""What the state of a run's checkpoint holds, however old it is."""


def identity(config: RunConfig, fingerprint: str) -> dict[str, Any]:
    """The values of all keys that are fixed, and of what the data are."""
    return {"data": fingerprint, **_values(config)}


def is_free(key: str) -> bool:
    """Whether a key, or one that it is below, may change."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Refuse to resume a run that is another one.

    Keys that did not exist when the checkpoint was written had their defaults.

    Raises:
        ConfigError: names each key that differs and both of its values.
    """
    before = _completed(saved)
    both = before.keys() & now.keys()
    changed = [k for k in {**before, **now} if k not in both or before[k] != now[k]]
    if changed:
        raise ConfigError(
            f"{run_dir} cannot be resumed: {_named(before, now, changed)}. Use another run_dir to "
            "start anew"
        )


def _values(section: Any, prefix: str = "") -> dict[str, Any]:
    """What is fixed in a section, by dotted keys; a mapping is one value, for its keys may grow."""
    found: dict[str, Any] = {}
    tree = to_dict(section)
    for field in dataclasses.fields(section):
        key, value = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            found |= _values(value, f"{key}.")
        elif not is_free(key):
            found[key] = tree[field.name]
    return found


def _completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says, as `identity` would say it today."""
    known = {key: value for key, value in saved.items() if not is_free(key)}
    told = _section(RunConfig, known)
    mappings = tuple(f"{key}." for key, value in told.items() if isinstance(value, Mapping))
    return {**{k: v for k, v in known.items() if not k.startswith(mappings)}, **told}


def _section(cls: type, saved: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a section as they were saved, with the defaults of those that are newer.

    Entries of a mapping used to be saved each under a key of its own.
    """
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        below = {k.removeprefix(f"{key}."): v for k, v in saved.items() if k.startswith(f"{key}.")}
        inner = next(filter(dataclasses.is_dataclass, _types(hints[field.name])), None)
        if below and inner is not None:
            found |= _section(typing.cast(type, inner), saved, f"{key}.")
        elif key in saved:
            found[key] = saved[key]
        elif below:
            found[key] = below
        elif not is_free(key):
            found |= _default(field, key)
    return found


def _types(hint: Any) -> tuple[Any, ...]:
    return (hint, *typing.get_args(hint))


def _default(field: "dataclasses.Field[Any]", key: str) -> dict[str, Any]:
    """What a field is where it is not given."""
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
    else:
        made = field.default
    if dataclasses.is_dataclass(made):
        return _values(made, f"{key}.")
    return {} if made is dataclasses.MISSING else {key: _plain(made)}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first few keys at which two trees differ, with both values; empty if none does."""
    before, after = flat(saved), flat(now)
    return _named(before, after, (k for k in {**before, **after} if before.get(k) != after.get(k)))


def _named(before: Mapping[str, Any], after: Mapping[str, Any], changed: Iterable[str]) -> str:
    named = [f"{k} was {before.get(k)}, is {after.get(k, 'something else')}" for k in changed]
    return "; ".join(named[:4])
