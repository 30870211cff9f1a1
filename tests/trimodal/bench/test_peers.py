import pytest
import torch

from trimodal.bench import peers
from trimodal.bench.peers import PEERS, ours
from trimodal.bench.workloads import Problem
from trimodal.testing import assert_close

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [[5, 40, 1, 17, 9, 9], [12, 12, 12]], ids=["ragged", "uniform"])
@pytest.mark.parametrize("name", ["padded SDPA", "bucketed SDPA"])
def test_a_peer_computes_what_ours_does(
    name: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "BUCKETS", 3)
    problem = Problem.draw(lengths, CPU, torch.float32)
    run, packed = PEERS[name](problem)
    for found, wanted in zip(packed(run()), ours(problem)[0](), strict=True):
        assert_close(found, wanted, "fp32-gradient")


def test_what_is_uniform_is_not_masked() -> None:
    """A mask would keep PyTorch from its fastest kernels, and flatter ours."""
    for lengths, masked in (([6, 6], False), ([6, 5], True)):
        block = peers._Block(Problem.draw(lengths, CPU, torch.float32), [0, 1], [0, lengths[0]])
        assert (block.mask is not None) == masked


def test_buckets_are_padded_to_their_own_longest() -> None:
    problem = Problem.draw([*range(1, 33)], CPU, torch.float32)
    run, _ = PEERS["bucketed SDPA"](problem)
    shapes = [tuple(grad.shape) for grad in run()][::3]
    assert shapes == [(2, 12, 2 * i, 64) for i in range(1, 17)]
