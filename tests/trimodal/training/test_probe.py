import torch

from trimodal.bench.padded import padded
from trimodal.config import RunConfig
from trimodal.testing import assert_close
from trimodal.training.probe import first_step


def test_the_first_step_is_the_same_packed_and_padded(config: RunConfig) -> None:
    step, batches = first_step(config)
    assert sum(batch.num_samples for batch in batches) == config.training.batch_size
    once, again = step(), step()
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert any(grad.any() for grad in once)
    with padded():
        found = step()
    for ours, theirs in zip(found, once, strict=True):
        assert_close(ours, theirs, "fp32-gradient")
