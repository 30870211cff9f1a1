"""What `test_two_processes.py` launches: a model whose parameters are sharded, and the same whole.

torchrun --nproc_per_node 2 sharded_ranks.py OUT
"""

import json
import sys
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from two_ranks import CONFIG, batches

from trimodal.batch import Batch
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.layers import Block
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
    return total


def gradients(model: nn.Module, batch: Batch) -> dict[str, list[float]]:
    """Of all parameters, whole."""
    loss_of(cast(TrimodalModel, model), batch).backward()
    found = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        if grad is not None:
            whole = grad.full_tensor() if isinstance(grad, DTensor) else grad
            found[name] = whole.double().flatten().tolist()
    return found


def main() -> None:
    """Write the gradients of both; every rank has the same batch, so their mean is the whole's."""
    dist.init_process_group("gloo")
    found = []
    batch = batches(0, 0)[0]
    for sharded in (False, True):
        torch.manual_seed(0)
        model = TrimodalModel(TrimodalConfig(architecture=to_dict(CONFIG.model))).train()
        torch.nn.init.normal_(model.fusion.projection.weight, std=0.1)
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
