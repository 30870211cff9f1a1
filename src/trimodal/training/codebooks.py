"""How much of the codebooks of pictures and speech training asks for.

metrics |= CodebookUsage(config, processor, device)(batches)
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from trimodal.batch import Batch, Modality
from trimodal.config import RunConfig
from trimodal.processors import TrimodalProcessor
from trimodal.tokenizers.fsq import perplexity, usage
from trimodal.vocabulary import Vocabulary

WINDOW = 50
"""Steps over which codes are counted."""
STEM = "codes"
"""Of the checkpoint's file."""
ASKED = ("target", "masked")
"""What the losses over codes are called before the modality."""


class CodebookUsage:
    """Counts the codes that all ranks' hidden tokens stood for, over the last steps.

    A tokenizer whose codes collapse, or a corpus that uses few of them, shows here and not in the
    loss, which falls all the faster.
    """

    def __init__(
        self, config: RunConfig, processor: TrimodalProcessor, device: torch.device
    ) -> None:
        self.device = device
        self.vocabulary = Vocabulary(config.model.vocabulary)
        asked = [Modality[name.upper()] for name in config.objectives.tokenized]
        codes = processor.codes
        self._sizes = {m: codes.num_codes(m) for m in asked} if codes is not None else {}
        self._recent: dict[Modality, deque[Tensor]] = {
            modality: deque(maxlen=WINDOW) for modality in self._sizes
        }

    def __call__(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Count a step; every rank has to call it.

        Returns:
            `codes/usage/MODALITY`, the share of the codes that occurred in the window, and
            `codes/perplexity/MODALITY`, as how many equally frequent ones they were.
        """
        if not self._sizes:
            return {}
        own = [self._counted(batches, modality) for modality in self._sizes]
        total = torch.cat(own).to(self.device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(total)
        parts = total.cpu().to(torch.int32).split(list(self._sizes.values()))
        metrics = {}
        for (modality, recent), part in zip(self._recent.items(), parts, strict=True):
            recent.append(part)
            window = torch.stack(tuple(recent)).sum(0)
            name = modality.name.lower()
            metrics[f"codes/usage/{name}"] = usage(window)
            metrics[f"codes/perplexity/{name}"] = perplexity(window)
        return metrics

    def _counted(self, batches: Sequence[Batch], modality: Modality) -> Tensor:
        """(size,) int64, how often each code was to be told on this rank."""
        names = {f"{kind}_{modality.name.lower()}" for kind in ASKED}
        found = [
            prediction.target.flatten()
            for batch in batches
            for name, prediction in (batch.views.predictions if batch.views else {}).items()
            if name in names and not prediction.target.is_floating_point()
        ]
        ids = torch.cat(found).cpu() if found else torch.zeros(0, dtype=torch.int64)
        start, size = self.vocabulary.range_of(modality).start, self._sizes[modality]
        return torch.bincount(ids - start, minlength=size)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint has to hold, by file."""
        held = {m.name.lower(): torch.stack(tuple(r)) for m, r in self._recent.items() if r}
        return {STEM: held} if held else {}

    def restore(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on where `tensors` was taken."""
        for modality, recent in self._recent.items():
            recent.clear()
            recent.extend(files.get(STEM, {}).get(modality.name.lower(), ()))
