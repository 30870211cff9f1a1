"""Where numbers go besides metrics.jsonl: TensorBoard, Weights & Biases, Trackio, MLflow.

with Trackers(run, config, start=0) as trackers: trackers.log({"train/loss": 0.7}, step=1)
"""

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from trimodal.config import RunConfig
from trimodal.errors import ConfigError
from trimodal.schema import flat, to_dict
from trimodal.storage import naming
from trimodal.training.run import RunDirectory
from trimodal.training.sampling import Made

TENSORBOARD = "tensorboard"


class Trackers:
    """The trackers of `training.trackers`; those other than TensorBoard are accelerate's.

    TensorBoard's is its own, since a run that goes on has to drop what it logged after its
    checkpoint. A service that fails during the run gets nothing more, and the run goes on.

    Raises:
        ConfigError: one is not installed, or cannot be started.
        StorageError: TensorBoard's files cannot be written; so do the methods.
    """

    def __init__(self, run: RunDirectory, config: RunConfig, start: int) -> None:
        names = config.training.trackers
        for name in names:
            if find_spec(name) is None:
                extra = "'trimodal[train]'" if name == TENSORBOARD else name
                raise ConfigError(f"training.trackers: {name} needs `pip install {extra}`")
        self._folder = run.path / TENSORBOARD
        self._writer = _summary_writer(self._folder, start) if TENSORBOARD in names else None
        self._services = {
            name: _started(name, run, config) for name in names if name != TENSORBOARD
        }

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        self._send(lambda service: service.finish())
        if self._writer is not None:
            with naming(self._folder, "written"):
                self._writer.close()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step."""
        if self._writer is not None:
            with naming(self._folder, "written"):
                for key, value in values.items():
                    self._writer.add_scalar(key, value, step)
        named = {plain_name(key): value for key, value in values.items()}
        self._send(lambda service: service.log(named, step=step))

    def show(self, made: Made, step: int, sample_rate: int) -> None:
        """Send one output to TensorBoard, and pictures to those of the others that take them."""
        name = f"samples/{made.name}"
        if self._writer is not None:
            with naming(self._folder, "written"):
                if isinstance(made.output, str):
                    self._writer.add_text(name, made.output, step)
                elif made.to == "image":
                    self._writer.add_image(name, made.output, step, dataformats="HWC")
                else:
                    self._writer.add_audio(name, made.output[np.newaxis], step, sample_rate)
        if made.to == "image":
            self._send(lambda service: _show(service, {name: [made.output]}, step))

    def _send(self, deed: Callable[[Any], object]) -> None:
        """Do it with each service that has not failed."""
        for name, service in list(self._services.items()):
            try:
                deed(service)
            except Exception as error:  # each has errors of its own
                del self._services[name]
                print(
                    f"trimodal: {name} gets no more numbers of this run: {_cause(error)}; all are "
                    "in metrics.jsonl",
                    file=sys.stderr,
                    flush=True,
                )


def plain_name(name: str) -> str:
    """A name as every service takes it; MLflow refuses all but letters, digits and `/_.-: `."""
    return name.replace("->", "-to-").replace("+", "-and-")


def _show(service: Any, pictures: dict[str, Any], step: int) -> None:
    if hasattr(service, "log_images"):
        service.log_images(pictures, step=step)


def _cause(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _summary_writer(folder: Path, start: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    with naming(folder, "written"):
        return SummaryWriter(folder, purge_step=start + 1)


def _started(name: str, run: RunDirectory, config: RunConfig) -> GeneralTracker:
    tree = flat(to_dict(config))
    # values of other types are refused by some of them
    plain = {
        plain_name(k): v if isinstance(v, bool | int | float | str) else str(v)
        for k, v in tree.items()
    }
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](run.path.resolve().name)
        tracker.start()
        tracker.store_init_configuration(plain)
    except Exception as error:  # such as that nobody has logged in
        raise ConfigError(
            f"training.trackers: {name} cannot be started: {_cause(error)}"
        ) from error
    return tracker
