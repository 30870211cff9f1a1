"""Parameters spread over the ranks (FSDP2, Zhao et al., 2023), where the launcher asks for it.

model = prepare(accelerator, model)

`accelerate launch --config_file configs/accelerate/fsdp.yaml` asks for it, or ACCELERATE_USE_FSDP
with torchrun. Sharding is our own call of `fully_shard` because accelerate's works on GPUs alone.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from trimodal.errors import ConfigError, StorageError
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.models.layers import Block
from trimodal.training.parts import Parts


def prepare(accelerator: Accelerator, model: TrimodalModel) -> nn.Module:
    """The model on its device, ready for steps that several ranks take together.

    Raises:
        ConfigError: the launcher asks for DeepSpeed, or for the first version of FSDP.
    """
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        raise ConfigError(
            "accelerate's distributed_type: DEEPSPEED is not supported, its engine keeps the state "
            "of a run to itself; FSDP with fsdp_version 2 spreads the same, see docs/training.md"
        )
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or not dist.is_initialized():
        return accelerator.prepare(model)
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ConfigError(
            "accelerate's fsdp_version: must be 2, the first version is not supported"
        )
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    offload = plugin.cpu_offload
    policy = offload if isinstance(offload, CPUOffloadPolicy) else OffloadPolicy()
    for module in model.modules():
        if isinstance(module, Block):
            reshards = bool(plugin.reshard_after_forward)
            fully_shard(module, mesh=mesh, reshard_after_forward=reshards, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)
    return accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)


def is_sharded(model: nn.Module) -> bool:
    """Whether ranks hold different parts of its parameters."""
    return isinstance(model, FSDPModule)


@contextmanager
def held_back(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Backward passes that add to the gradients of this rank alone."""
    if not isinstance(model, FSDPModule):
        with accelerator.no_sync(model):
            yield
        return
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def own(x: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return x.to_local() if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All of a tensor; every rank has to ask for it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def read_own(parts: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """What this rank holds of a stored tensor that is spread as `like` is."""
    if not isinstance(like, DTensor):
        return parts[name]
    assert isinstance(parts, Parts)  # noqa: S101 - what is read for it is a checkpoint
    rows, ranks = like.shape[0], like.device_mesh.size()
    size = -(-rows // ranks)
    start = min(rows, like.device_mesh.get_local_rank() * size)
    stop = min(rows, start + size)
    local = parts.rows(name, start, stop).to(like.device)
    return DTensor.from_local(
        local, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )


@torch.no_grad()
def restore_weights(model: nn.Module, parts: Parts) -> None:
    """Give a model the weights of a checkpoint, whatever number of ranks wrote it.

    Raises:
        StorageError: they are those of another model.
    """
    state = model.state_dict()
    if state.keys() != parts.keys():
        odd = ", ".join(sorted(state.keys() ^ parts.keys())[:4])
        raise StorageError(f"the checkpoint is one of another model, see {odd}")
    for name, x in state.items():
        x.copy_(read_own(parts, name, x))


def gathered(model: TrimodalModel, main: bool) -> TrimodalModel | None:
    """A copy with whole parameters on the main rank; every rank has to ask for it.

    What is not sharded is given back as it is.
    """
    if not is_sharded(model):
        return model
    state = {name: whole(x).cpu() for name, x in model.state_dict().items()}
    if not main:
        return None
    with torch.random.fork_rng(devices=[]):
        copy = TrimodalModel(cast(TrimodalConfig, model.config))
    copy.load_state_dict(state)
    copy.processor = model.processor
    cast(nn.Module, copy).to(model.device)
    return copy.train(model.training)
