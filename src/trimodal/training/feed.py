"""A rank's share of each step as packed micro-batches, a pure function of (seed, data, step).

for batches in DataLoader(StepFeed(...), sampler=range(start, stop), batch_size=None): ...
"""

from torch.utils.data import Dataset

from trimodal.assembly import assemble
from trimodal.batch import Batch
from trimodal.config import RunConfig
from trimodal.data.dataset import RowDataset
from trimodal.errors import TrimodalError
from trimodal.objectives import plan_views
from trimodal.packing import first_fit
from trimodal.streams import permutation


class StepFeed(Dataset[list[Batch] | TrimodalError]):
    """Item `step` is what one rank computes in that step, so there is no position to save.

    Sample g of the run is element g mod n of the permutation of its epoch. A step takes
    `batch_size` of them, each rank a contiguous share, whatever the number of ranks.
    """

    def __init__(
        self, dataset: RowDataset, config: RunConfig, rank: int = 0, world_size: int = 1
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.share = config.training.batch_size // world_size
        self.rank = rank
        self._orders: dict[int, list[int]] = {}

    def indices(self, step: int) -> list[int]:
        """Rows of this rank's share of a step."""
        first = step * self.config.training.batch_size + self.rank * self.share
        return [self._index(g) for g in range(first, first + self.share)]

    def _index(self, g: int) -> int:
        epoch, position = divmod(g, len(self.dataset))
        if epoch not in self._orders:
            order = permutation(len(self.dataset), self.config.seed, epoch).tolist()
            recent = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders = {**recent, epoch: order}
        return self._orders[epoch][position]

    def __getitem__(self, step: int) -> list[Batch] | TrimodalError:
        """What `batches` returns or raises: a loader process would wrap an error in a traceback."""
        try:
            return self.batches(step)
        except TrimodalError as error:
            return error

    def batches(self, step: int) -> list[Batch]:
        """Micro-batches of at most `token_budget` tokens; a longer sample has one to itself.

        Raises:
            DataError: `FILE:LINE: cause`, a medium cannot be used.
        """
        seed = self.config.seed
        samples = [self.dataset.sample(i, seed, step) for i in self.indices(step)]
        fused, masked = plan_views(samples, self.config.objectives, "views", seed, step)
        costs = []
        for sample, members, masking in zip(samples, fused, masked, strict=True):
            cost = sample.num_tokens
            cost += sum(sample.media[m].num_tokens for m in members or ())
            if masking is not None:
                own = sample.media[masking.modality].num_tokens
                cost += 2 * own + sum(sample.media[m].num_tokens for m in masking.helpers)
            costs.append(cost)
        return [
            assemble(
                [samples[i] for i in indices],
                [fused[i] for i in indices],
                [masked[i] for i in indices],
            )
            for indices in first_fit(costs, self.config.training.token_budget)
        ]
