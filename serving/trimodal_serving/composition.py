"""A batch of outputs that is being generated, step by step in the thread of the model.

composition = Composition(model, tasks, token_budget); outcome = composition.step()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trimodal.batch import Medium, Sample
from trimodal.errors import NumericError
from trimodal_serving.errors import ServingError, nonfinite

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel
    from trimodal.models.decoding import Decoding, Steps
    from trimodal.models.generation import Generation, Request


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
    def kind(self) -> "tuple[Request, Decoding]":
        """What tasks of one batch have in common."""
        return self.request, self.decoding

    @property
    def held(self) -> int:
        """Tokens whose keys and values are held while it is generated."""
        begun = self.begun.num_tokens if self.begun else 0
        return 2 * self.sample.num_tokens + begun + self.room

    @property
    def cost(self) -> int:
        """Tokens that are computed."""
        copies = 1 if self.decoding.guidance == 1 else 2
        return copies * (self.held + (passes(self.request, self.decoding) - 1) * self.room)


def passes(request: "Request", decoding: "Decoding") -> int:
    """How often each id of an output is computed."""
    return 1 if request.to.data_name == "text" else decoding.steps


Results = list["Generation | ServingError"]


class Composition:
    """Tasks of one kind; `step` is only ever called from one thread."""

    def __init__(self, model: "TrimodalModel", tasks: Sequence[Task], token_budget: int) -> None:
        self._model = model
        self._tasks = tasks
        self._token_budget = token_budget
        self._steps: Steps[list[Generation]] | None = None

    def step(self) -> Mapping[int, Sequence[int]] | Results:
        """The ids so far of outputs that changed, or when all is done a result for each task.

        Raises:
            Exception: the model fails on one of the tasks or on all.
        """
        try:
            return next(self._begun())
        except StopIteration as end:
            return [_accepted(one) for one in end.value]
        except NumericError:
            if len(self._tasks) > 1:
                raise
            return [nonfinite()]

    def _begun(self) -> "Steps[list[Generation]]":
        if self._steps is None:
            from trimodal.models.generation import generate_steps

            request, decoding = self._tasks[0].kind
            self._steps = generate_steps(
                self._model,
                [task.sample for task in self._tasks],
                request,
                decoding,
                [task.seed for task in self._tasks],
                [task.begun for task in self._tasks],
                self._token_budget,
            )
        return self._steps


def _accepted(one: "Generation") -> "Generation | ServingError":
    if isinstance(one.output, np.ndarray) and not np.isfinite(one.output).all():
        return nonfinite()
    return one
