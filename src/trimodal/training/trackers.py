"""Where numbers go besides metrics.jsonl: TensorBoard, Weights & Biases, Trackio, MLflow.

with Trackers(run, config, start=0) as trackers: trackers.log({"train/loss": 0.7}, step=1)
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from trimodal.config import RunConfig
from trimodal.errors import ConfigError
from trimodal.schema import flat, to_dict
from trimodal.training.run import RunDirectory
from trimodal.training.sampling import Made

TENSORBOARD = "tensorboard"


class Trackers:
    """The trackers of `training.trackers`; those other than TensorBoard are accelerate's.

    TensorBoard's is its own, since a run that goes on has to drop what it logged after its
    checkpoint.
    """

    def __init__(self, run: RunDirectory, config: RunConfig, start: int) -> None:
        names = config.training.trackers
        for name in names:
            if find_spec(name) is None:
                extra = "'trimodal[train]'" if name == TENSORBOARD else name
                raise ConfigError(f"training.trackers: {name} needs `pip install {extra}`")
        self._writer = _summary_writer(run, start) if TENSORBOARD in names else None
        self._trackers = [_started(name, run, config) for name in names if name != TENSORBOARD]

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        for tracker in self._trackers:
            tracker.finish()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step."""
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(key, value, step)
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def show(self, made: Made, step: int, sample_rate: int) -> None:
        """Send one output to TensorBoard, and pictures to those of the others that take them."""
        name = f"samples/{made.name}"
        if self._writer is not None:
            if isinstance(made.output, str):
                self._writer.add_text(name, made.output, step)
            elif made.to == "image":
                self._writer.add_image(name, made.output, step, dataformats="HWC")
            else:
                self._writer.add_audio(name, made.output[np.newaxis], step, sample_rate)
        for tracker in self._trackers:
            log_images = getattr(tracker, "log_images", None)
            if made.to == "image" and log_images is not None:
                log_images({name: [made.output]}, step=step)


def _summary_writer(run: RunDirectory, start: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run.path / TENSORBOARD, purge_step=start + 1)


def _started(name: str, run: RunDirectory, config: RunConfig) -> GeneralTracker:
    tracker = LOGGER_TYPE_TO_CLASS[name](run.path.resolve().name)
    tracker.start()
    tree = flat(to_dict(config))
    # values of other types are refused by some of them
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in tree.items()}
    tracker.store_init_configuration(plain)
    return tracker
