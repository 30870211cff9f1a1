"""The model of a run: written in its place at the end, or from one of its checkpoints before.

step = export(Path("runs/demo"), step=400, out=Path("exports/demo-400"))
"""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from safetensors import SafetensorError

from trimodal.config import load_config
from trimodal.errors import ConfigError, PathError, StorageError
from trimodal.models import TrimodalModel
from trimodal.storage import sync
from trimodal.training.averaging import WeightAverage
from trimodal.training.building import build_processor, data_fingerprint, new_model
from trimodal.training.checkpoint import load_newest, load_step
from trimodal.training.identity import NEEDED, check_identity, identity
from trimodal.training.run import RunDirectory
from trimodal.training.sharding import restore_weights


def write_model(model: TrimodalModel, place: Path) -> None:
    """Write a model beside its place, then put it there in the place of a former one.

    Raises:
        StorageError: it cannot be written.
    """
    beside = place.parent / f".new-{place.name}"
    former = place.parent / f".former-{place.name}-{os.getpid()}"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.parent.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(beside)
        for path in (*beside.rglob("*"), beside):
            sync(path)
        if place.exists():
            place.rename(former)
        beside.rename(place)
        sync(place.parent)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{place} cannot be written: {error}") from error
    shutil.rmtree(former, ignore_errors=True)


def export(folder: Path, step: int | None = None, out: Path | None = None) -> int:
    """Write the model that a run would end with if it ended at one of its checkpoints.

    Args:
        folder: of the run, which may be going on if the model is written elsewhere.
        step: of the checkpoint; the newest if none is given.
        out: a new folder; without, the model of the run is replaced.

    Returns:
        The step.

    Raises:
        ConfigError: another process holds the run, `out` is in use, or the data and tokenizers of
            the run are no longer what they were.
        PathError: there is no such checkpoint.
        StorageError: a file cannot be read or written.
    """
    config = load_config(folder / "config.yaml")
    run = RunDirectory(folder)
    with ExitStack() as stack:
        if out is None:
            stack.enter_context(run)
        elif out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file, where a folder is to be")
        elif out.exists() and any(out.iterdir()):
            raise ConfigError(f"--out {out} is not empty")
        newest = load_newest(run.checkpoints, NEEDED) if step is None else None
        checkpoint = load_step(run.checkpoints, step, NEEDED) if step is not None else newest
        if checkpoint is None:
            raise PathError(f"{run.checkpoints} holds no checkpoint")
        processor = build_processor(config)
        now = identity(config, data_fingerprint(config, processor))
        check_identity(checkpoint.state["identity"], now, folder)
        model = new_model(config, processor, checkpoint.state)
        restore_weights(model, checkpoint.tensors["model"])
        average = WeightAverage(model, config.training.ema)
        average.restore(checkpoint.tensors)
        with average.applied():
            write_model(model, out or run.model)
    return checkpoint.step
