"""What `test_two_processes.py` launches: steps in which no rank has all modalities.

torchrun --nproc_per_node 2 two_ranks.py OUT STEPS
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from trimodal.assembly import assemble
from trimodal.batch import Batch, Sample
from trimodal.config import ContrastiveConfig, DataConfig, MaskedConfig, ObjectivesConfig, RunConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.objectives import plan_views
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import tiny_model_config, tiny_tokenizer
from trimodal.training.gradients import StepGradients

CONFIG = RunConfig(
    run_dir="unused",
    data=DataConfig(train=("unused",), tokenizer="unused"),
    model=tiny_model_config(),
    objectives=ObjectivesConfig(contrastive=ContrastiveConfig(), masked=MaskedConfig()),
)
TEXTS = ["a red square", "蓝色的方块", "the square is green", "方块是白色"]


def samples_of(rank: int, step: int) -> list[Sample]:
    """Pictures with text of rank 0, speech with text of rank 1."""
    rng = np.random.default_rng([rank, step])
    processor = TrimodalProcessor(CONFIG.model, tiny_tokenizer())
    pictures = [rng.integers(0, 256, (8, 8 + 4 * i, 3), dtype=np.uint8) for i in range(4)]
    waves = [(rng.standard_normal(2000 + 500 * i).astype(np.float32), 16_000) for i in range(4)]
    if rank == 0:
        return processor(text=TEXTS, image=pictures)
    return processor(text=TEXTS, speech=waves)


def batches(rank: int, step: int) -> list[Batch]:
    """The samples, those of rank 1 at times in more micro-batches."""
    samples = samples_of(rank, step)
    plan = plan_views(samples, CONFIG.objectives, "views", rank, step)
    bounds = (0, 1, 2, 4) if rank == 1 and step % 2 else (0, 4)
    return [
        assemble(samples[a:b], plan.fused[a:b], plan.masked[a:b], summaries=True)
        for a, b in pairwise(bounds)
    ]


def main() -> None:
    """Write the last gradients and all losses of this world."""
    out, steps = Path(sys.argv[1]), int(sys.argv[2])
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    bare = TrimodalModel(TrimodalConfig(architecture=to_dict(CONFIG.model))).train()
    torch.nn.init.normal_(bare.fusion.projection.weight, std=0.1)
    optimizer = torch.optim.SGD(bare.parameters(), lr=1e-4)
    model = accelerator.prepare(bare)
    gradients = StepGradients(accelerator, model, CONFIG)
    single = accelerator.num_processes == 1
    losses, grads = [], {}
    for step in range(steps):
        ranks = (0, 1) if single else (accelerator.process_index,)
        optimizer.zero_grad()
        own = [batch for rank in ranks for batch in batches(rank, step)]
        losses.append(gradients(own)["loss"])
        grads = {
            n: p.grad.double().flatten() for n, p in bare.named_parameters() if p.grad is not None
        }
        optimizer.step()
    if accelerator.is_main_process:
        norms = {name: grad.tolist() for name, grad in grads.items()}
        out.write_text(json.dumps({"losses": losses, "grads": norms}))


if __name__ == "__main__":
    main()
