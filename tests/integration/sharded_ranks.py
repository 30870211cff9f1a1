"""What `test_two_processes.py` launches: a model whose parameters are sharded, and the same whole.

The ranks have other media, and the first one alone has tuples for matching.

torchrun --nproc_per_node 2 sharded_ranks.py OUT
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from two_ranks import CONFIG, batches, samples_of

from trimodal.batch import Batch
from trimodal.config import MatchingConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.layers import Block
from trimodal.objectives.matching import draw_tuples, pack_tuples
from trimodal.schema import to_dict


def loss_of(model: TrimodalModel, batch: Batch) -> Tensor:
    """Something of every output: embeddings and what the heads predict."""
    output = model(**batch.inputs())
    assert output.z_NSE is not None
    assert output.zero is not None
    weights = torch.arange(output.z_NSE.numel()).view_as(output.z_NSE).sin()
    total = (output.z_NSE * weights).sum() + output.zero
    for name, answer in (output.predictions or {}).items():
        assert batch.views is not None
        target = batch.views.predictions[name].target
        if isinstance(answer, Tensor):
            total = total + (answer - target).square().mean()
        else:
            ids = model.vocabulary.range_of(batch.views.predictions[name].modality)
            total = total + answer.cross_entropy(target - ids.start)
    if output.matching is not None:
        total = total + nn.functional.cross_entropy(*output.matching)
    return total


def batch_of(rank: int) -> Batch:
    """Its micro-batch."""
    batch = batches(rank, 0)[0]
    if rank:
        return batch
    samples = samples_of(rank, 0)
    tuples = draw_tuples(samples, MatchingConfig(rate=1.0), "matching")
    return replace(batch, matching=pack_tuples(samples, tuples))


def gradients(model: nn.Module, batch: Batch) -> dict[str, list[float]]:
    """Of all parameters, whole: the mean over the ranks."""
    loss_of(cast(TrimodalModel, model), batch).backward()
    found = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        if grad is not None:
            if isinstance(grad, DTensor):
                grad = grad.full_tensor()
            else:
                dist.all_reduce(grad)
                grad = grad / dist.get_world_size()
            found[name] = grad.double().flatten().tolist()
    return found


def main() -> None:
    """Write the gradients of both."""
    dist.init_process_group("gloo")
    found = []
    batch = batch_of(dist.get_rank())
    for sharded in (False, True):
        torch.manual_seed(0)
        model = TrimodalModel(TrimodalConfig(architecture=to_dict(CONFIG.model))).train()
        torch.nn.init.normal_(model.fusion.projection.weight, std=0.1)
        model.shows_tuples = sharded
        if sharded:
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            for module in model.modules():
                if isinstance(module, Block):
                    fully_shard(module, mesh=mesh)
            fully_shard(model, mesh=mesh)
        found.append(gradients(model, batch))
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
