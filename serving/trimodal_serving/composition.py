"""Outputs of one kind that are generated together, step by step in the thread of the model.

composition = Composition(model, kind); composition.add({0: task}); outcome = composition.step()
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trimodal.batch import Medium, Modality, Sample
from trimodal.errors import NumericError
from trimodal_serving.errors import ServingError, internal, nonfinite

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel
    from trimodal.models.decoding import Decoding, Grown
    from trimodal.models.generation import Generation, Outputs, Request

Kind = tuple[Modality, bool]
"""What is generated, and whether it is guided."""


@dataclass(frozen=True)
class Task:
    """One output."""

    sample: Sample
    begun: Medium | None
    request: "Request"
    decoding: "Decoding"
    seed: int
    room: int
    """Ids of the output at most."""

    @property
    def kind(self) -> Kind:
        """What tasks of one batch have in common."""
        return self.request.to, self.decoding.guided

    @property
    def held(self) -> int:
        """Tokens whose keys and values are held while it is generated."""
        begun = self.begun.num_tokens if self.begun else 0
        return 2 * self.sample.num_tokens + begun + self.room

    @property
    def cost(self) -> int:
        """Tokens that are computed."""
        return self._copies * (self.held + (passes(self.request, self.decoding) - 1) * self.room)

    @property
    def step(self) -> int:
        """Tokens that are computed in each step but the first."""
        return self._copies * (1 if self.request.to is Modality.TEXT else self.room)

    @property
    def _copies(self) -> int:
        return 2 if self.decoding.guided else 1


def passes(request: "Request", decoding: "Decoding") -> int:
    """How often each id of an output is computed."""
    return 1 if request.to.data_name == "text" else decoding.steps


@dataclass(frozen=True)
class Outcome:
    """What became of some tasks in a step, by their numbers."""

    grown: "Mapping[int, Grown]" = field(default_factory=dict)
    """What there is of outputs that changed."""
    done: "Mapping[int, Generation | ServingError]" = field(default_factory=dict)
    failed: Sequence[int] = ()
    """Those among which something failed, which are given up here."""
    error: Exception | None = None
    """Why they failed."""


class Composition:
    """Tasks of one kind, each at a step and in a way of its own; others join between two steps.

    `step` is only ever called from one thread; what else is asked takes effect with the next step.
    """

    def __init__(self, model: "TrimodalModel", kind: Kind) -> None:
        self._model = model
        self._to, _ = kind
        self._outputs: Outputs | None = None
        self._running: set[int] = set()
        self._joining: dict[int, Task] = {}
        self._leaving: set[int] = set()

    def add(self, tasks: Mapping[int, Task]) -> None:
        """Let tasks join, under numbers that no other ever had."""
        self._joining.update(tasks)

    def drop(self, numbers: Iterable[int]) -> None:
        """Give tasks up."""
        self._leaving.update(numbers)

    def step(self) -> Outcome:
        """Begin those that joined, then go on with all.

        Those that cannot begin fail by themselves, and the others go on with the next step.
        """
        leaving, self._leaving = self._leaving, set()
        joining, self._joining = self._joining, {}
        outputs = self._ready()
        outputs.drop(leaving)
        self._running -= leaving
        joining = {number: task for number, task in joining.items() if number not in leaving}
        try:
            if joining:
                self._begin(outputs, joining)
        except Exception as error:
            return Outcome(failed=list(joining), error=error)
        self._running |= joining.keys()
        if not self._running:
            return Outcome()
        try:
            grown, done = outputs.step()
        except Exception as error:
            failed = list(self._running)
            outputs.drop(failed)
            self._running.clear()
            return Outcome(failed=failed, error=error)
        self._running -= done.keys()
        return Outcome(grown, {number: _accepted(one) for number, one in done.items()})

    def _ready(self) -> "Outputs":
        if self._outputs is None:
            from trimodal.models.generation import Outputs

            self._outputs = Outputs(self._model, self._to)
        return self._outputs

    def _begin(self, outputs: "Outputs", joining: Mapping[int, Task]) -> None:
        from trimodal.models.generation import Wanted

        outputs.add(
            {
                number: Wanted(task.sample, task.request, task.decoding, task.seed, task.begun)
                for number, task in joining.items()
            }
        )


def failure(error: Exception | None) -> ServingError:
    """What is said of a task that failed alone."""
    return nonfinite() if isinstance(error, NumericError) else internal(cause=error)


def _accepted(one: "Generation") -> "Generation | ServingError":
    if isinstance(one.output, np.ndarray) and not np.isfinite(one.output).all():
        return nonfinite()
    return one
