"""Ragged samples of three modalities that need no files, and that something can be learnt from.

batches = SyntheticFeed(load_config("configs/base.yaml"), num_samples=256).batches(step=0)
"""

from dataclasses import replace

import numpy as np
import torch

from trimodal.assembly import Writing, assemble
from trimodal.batch import Batch, Medium, Modality, Sample, Target
from trimodal.bench.workloads import MISSING, caption_length
from trimodal.config import RunConfig
from trimodal.objectives import Wish, draw_hidden_codes, draw_tuples, pack_tuples, plan_views
from trimodal.packing import first_fit
from trimodal.streams import generator
from trimodal.training.feed import plan_attention
from trimodal.vocabulary import Vocabulary, prompt

MEANINGS = 8
"""What a sample can be about: all its media are drawn around it."""
NOISE = 0.5
SIDES = (8, 16)
"""Fewest and most patches along a side of a picture."""
SPEECH = (50, 500)
"""Fewest and most tokens of an utterance."""


class SyntheticFeed:
    """What a step of a run would be given, a pure function of (seed, step)."""

    def __init__(self, config: RunConfig, num_samples: int) -> None:
        self.config = config
        self.num_samples = num_samples
        self.vocabulary = Vocabulary(config.model.vocabulary)
        rng = generator(config.seed, "meanings")
        patch = 3 * config.model.vision_input.patch_size**2
        mels = config.model.speech_input.num_mels
        self._patches = rng.standard_normal((MEANINGS, patch), dtype=np.float32)
        self._frames = rng.standard_normal((MEANINGS, mels), dtype=np.float32)
        self._words = rng.integers(config.model.vocabulary.text, size=(MEANINGS, 8))

    def batches(self, step: int) -> list[Batch]:
        """Micro-batches of at most `training.token_budget` tokens, as `StepFeed` cuts them."""
        objectives, seed = self.config.objectives, self.config.seed
        meanings = generator(seed, "meaning", step).integers(MEANINGS, size=self.num_samples)
        samples = [self._sample(int(m), step, i) for i, m in enumerate(meanings)]
        plan = plan_views(samples, objectives, "views", seed, step)
        written = [
            [self._writing(int(m), wish, step, i) for wish in wishes]
            for i, (m, wishes) in enumerate(zip(meanings, plan.wishes, strict=True))
        ]
        tuples = draw_tuples(samples, objectives.matching, "matching", seed, step)
        # a fused, a masked and a matched view cost at most a sample again each
        costs = [
            4 * sample.num_tokens + sum(writing.cost(sample) for writing in writings)
            for sample, writings in zip(samples, written, strict=True)
        ]
        batches = []
        for chosen in first_fit(costs, self.config.training.token_budget):
            packed = assemble(
                [samples[i] for i in chosen],
                [plan.fused[i] for i in chosen],
                [plan.masked[i] for i in chosen],
                [written[i] for i in chosen],
                summaries=self.config.model.summaries,
            )
            matching = pack_tuples([samples[i] for i in chosen], [tuples[i] for i in chosen])
            batches.append(replace(packed, matching=matching))
            plan_attention(batches[-1], self.config.model)
        return batches

    def _sample(self, meaning: int, step: int, index: int) -> Sample:
        rng = generator(self.config.seed, "sample", step, index)
        present = rng.random(3) >= MISSING
        present[int(rng.integers(3))] = True
        makers = (self._picture, self._text, self._speech)
        media = {
            modality: make(meaning, rng)
            for modality, make, here in zip(Modality, makers, present, strict=True)
            if here
        }
        return Sample(f"{step}-{index}", media, meaning, kin=frozenset(media))

    def _picture(self, meaning: int, rng: np.random.Generator) -> Medium:
        rows, columns = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
        features = self._noisy(self._patches[meaning], rows * columns, rng)
        return Medium(Modality.VISION, features, rows * columns, (rows, columns))

    def _text(self, meaning: int, rng: np.random.Generator) -> Medium:
        size = min(caption_length(rng), self.config.model.max_text_tokens)
        ids = self.vocabulary.text.start + rng.choice(self._words[meaning], size)
        return Medium(Modality.TEXT, torch.from_numpy(ids), size, (size, 1))

    def _speech(self, meaning: int, rng: np.random.Generator) -> Medium:
        size = int(rng.integers(SPEECH[0], SPEECH[1] + 1))
        stride = self.config.model.speech_input.stride
        features = self._noisy(self._frames[meaning], size * stride, rng)
        return Medium(Modality.SPEECH, features, size, (size, 1))

    def _noisy(self, row: np.ndarray, count: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(
            row + NOISE * rng.standard_normal((count, len(row)), dtype=np.float32)
        )

    def _writing(self, meaning: int, wish: Wish, step: int, index: int) -> Writing:
        """A text of the same meaning, or codes of which each stands for it."""
        keys = (self.config.seed, step, index, int(wish.modality), *wish.again)
        rng = generator("target", *keys)
        if wish.modality is Modality.TEXT:
            medium = self._text(meaning, rng)
            target = Target(Modality.TEXT, medium.features, medium.grid, prompt(Modality.TEXT))
            return Writing(target, wish.members)
        make = self._picture if wish.modality is Modality.VISION else self._speech
        grid = make(meaning, rng).grid
        ids = self.vocabulary.range_of(wish.modality)
        codes = torch.full((grid[0] * grid[1],), ids.start + meaning % ids.size)
        hidden_T = draw_hidden_codes(len(codes), *keys)
        target = Target(wish.modality, codes, grid, prompt(wish.modality))
        return Writing(target, wish.members, hidden_T=hidden_T)
