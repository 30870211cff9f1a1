"""A rank's share of each step as packed micro-batches, a pure function of (seed, data, step).

for batches in DataLoader(StepFeed(...), sampler=range(start, stop), batch_size=None): ...
"""

from collections.abc import Sequence
from dataclasses import replace

from torch.utils.data import Dataset

from trimodal.assembly import Masking, Writing, assemble
from trimodal.batch import Batch, Modality, Sample
from trimodal.config import ModelConfig, RunConfig, TransformerConfig
from trimodal.data.dataset import RowDataset
from trimodal.errors import DataError, TrimodalError
from trimodal.objectives import Plan, Wish, draw_hidden_codes, draw_tuples, pack_tuples, plan_views
from trimodal.packing import balance, first_fit
from trimodal.tokenizers import BestRQ
from trimodal.training.order import SampleOrder
from trimodal_kernels.dispatch import Implementation


class StepFeed(Dataset[list[Batch] | TrimodalError]):
    """Item `step` is what one rank computes in that step, so there is no position to save.

    A step takes the next `batch_size` samples of `SampleOrder`, whatever the number of ranks, each
    of which gets as many of them, chosen so that all have about as much to compute.
    """

    def __init__(
        self,
        dataset: RowDataset,
        config: RunConfig,
        rank: int = 0,
        world_size: int = 1,
        way: Implementation | None = None,
    ) -> None:
        self.dataset = dataset
        self.way: Implementation | None = way
        """How the device that trains attends, for which plans are made here."""
        self.config = config
        self.rank, self.world_size = rank, world_size
        self.order = SampleOrder(dataset.sizes, config)
        speech = config.model.speech_input
        self._best_rq = BestRQ(
            num_mels=speech.num_mels,
            stride=speech.stride,
            num_codebooks=max(1, config.model.best_rq_codebooks),
        )

    def indices(self, step: int) -> list[int]:
        """Rows of this rank's share of a step."""
        first = step * self.config.training.batch_size
        places = range(first, first + self.config.training.batch_size)
        rows = [self.order.row(place) for place in places]
        if self.world_size == 1:
            return rows
        shares = balance([self.dataset.cost(row) for row in rows], self.world_size)
        return [rows[i] for i in shares[self.rank]]

    def __getitem__(self, step: int) -> list[Batch] | TrimodalError:
        """What `batches` returns or raises: a loader process would wrap an error in a traceback."""
        try:
            return self.batches(step)
        except TrimodalError as error:
            return error

    def batches(self, step: int) -> list[Batch]:
        """Micro-batches of at most `token_budget` tokens; a longer sample has one to itself.

        Raises:
            DataError: `FILE:LINE: cause`, a medium cannot be used, and none is tolerated.
        """
        seed = self.config.seed
        indices = self.indices(step)
        skipped: list[str] = []
        samples = [self._sample(i, step, skipped) for i in indices]
        plan = plan_views(samples, self.config.objectives, "views", seed, step)
        samples = self._tokenized(samples, plan)
        written = [
            self._writings(index, wishes, step, skipped)
            for index, wishes in zip(indices, plan.wishes, strict=True)
        ]
        tuples = draw_tuples(samples, self.config.objectives.matching, "matching", seed, step)
        costs = [
            _cost(*planned) + (sample.num_tokens + 3) * (mismatch is not None)
            for sample, mismatch, *planned in zip(
                samples, tuples, samples, plan.fused, plan.masked, written, strict=True
            )
        ]
        batches = []
        for indices in first_fit(costs, self.config.training.token_budget):
            chosen = [samples[i] for i in indices]
            batch = assemble(
                chosen,
                [plan.fused[i] for i in indices],
                [plan.masked[i] for i in indices],
                [written[i] for i in indices],
                summaries=self.config.model.summaries,
                keys=(seed, step),
            )
            matching = pack_tuples(chosen, [tuples[i] for i in indices])
            batches.append(replace(batch, matching=matching))
            plan_attention(batches[-1], self.config.model, self.way)
        batches[0] = replace(batches[0], skipped=tuple(skipped))
        return batches

    def _sample(self, index: int, step: int, skipped: list[str]) -> Sample:
        """A row, or nothing in its place if it cannot be used and that is tolerated."""
        try:
            return self.dataset.sample(index, self.config.seed, step)
        except DataError as error:
            if not self.config.data.tolerance:
                raise
            skipped.append(str(error))
        return Sample(self.dataset.rows[index].id, {}, self.dataset.groups[index])

    def _writings(
        self, index: int, wishes: Sequence[Wish], step: int, skipped: list[str]
    ) -> list[Writing]:
        """Targets of a row, less those that cannot be used if that is tolerated."""
        made = []
        for wish in wishes:
            try:
                made.append(self._writing(index, wish, step))
            except DataError as error:
                if not self.config.data.tolerance:
                    raise
                skipped.append(str(error))
        return made

    def _writing(self, index: int, wish: Wish, step: int) -> Writing:
        keys = (self.config.seed, step)
        if wish.answer:
            writing = self.dataset.answer(index, wish.members, *keys, again=wish.again)
        else:
            writing = self.dataset.writing(
                index, wish.modality, wish.members, wish.kin, *keys, again=wish.again
            )
        if wish.modality is Modality.TEXT:
            return writing
        hidden_T = draw_hidden_codes(len(writing.target.ids), *keys, self.dataset.rows[index].id)
        return replace(writing, hidden_T=hidden_T)

    def _tokenized(self, samples: Sequence[Sample], plan: Plan) -> list[Sample]:
        """The samples, those media tokenised of which something is hidden and asked as a code."""
        samples, config = list(samples), self.config.objectives.masked
        targets = {
            Modality.VISION: config.vision_target if config else "",
            Modality.SPEECH: config.speech_target if config else "",
        }
        for modality, target in targets.items():
            chosen = [i for i, m in enumerate(plan.masked) if m and m.modality is modality]
            media = [samples[i].media[modality] for i in chosen]
            if target == "codes" and self.dataset.processor.codes is not None:
                media = self.dataset.processor.codes.tokenized(media)
            elif target == "best_rq":
                media = [replace(m, quantised=self._best_rq.targets(m.features)) for m in media]
            for i, medium in zip(chosen, media, strict=True):
                samples[i] = replace(samples[i], media={**samples[i].media, modality: medium})
        return samples


def plan_attention(batch: Batch, model: ModelConfig, way: Implementation | None = None) -> None:
    """Plan attention where a batch is packed, in a loader's process and not in the model's."""
    for modality, media in batch.media.items():
        tower: TransformerConfig = getattr(model, modality.name.lower())
        media.tokens.segments.prepare(tower.num_heads, way)
    if batch.views is not None:
        batch.views.tokens.segments.prepare(model.trunk.num_heads, way)


def _cost(
    sample: Sample,
    members: frozenset[Modality] | None,
    masking: Masking | None,
    writings: Sequence[Writing],
) -> int:
    """Tokens that encoders and trunk compute for a sample at most."""
    cost = sample.num_tokens + sum(1 + sample.media[m].num_tokens for m in members or ())
    if masking is not None:
        own = sample.media[masking.modality].num_tokens
        cost += 1 + 2 * own + sum(1 + sample.media[m].num_tokens for m in masking.helpers)
    return cost + sum(writing.cost(sample) for writing in writings)
