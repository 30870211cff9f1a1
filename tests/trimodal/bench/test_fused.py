import pytest
import torch

from trimodal.bench import fused, ragged
from trimodal.bench.fused import exactness_row, fused_rows, repeated_row
from trimodal.bench.peers import PEERS

CPU = torch.device("cpu")


@pytest.mark.usefixtures("uncompiled")
def test_norms_and_rotations_are_added_to_the_best_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "PEERS", {n: PEERS[n] for n in ("padded SDPA", "bucketed SDPA")})
    taken = {"ours": 2.0, "turned": 1.0, "padded SDPA": 5.0, "bucketed SDPA": 3.0}

    def given(ways: dict[str, object], *_: object) -> dict[str, float]:
        assert ways.keys() == taken.keys()
        return taken

    monkeypatch.setattr(fused, "medians", given)
    (row,) = fused_rows(CPU, rounds=1, num_tokens=60)
    assert row.name.endswith("bucketed SDPA")
    assert (row.ratio, row.gate) == (2.0, 1.15)


def test_gradients_are_the_same_in_every_run() -> None:
    row = repeated_row(CPU, num_tokens=60, runs=5)
    assert (row.ratio, row.ours, row.theirs, row.passes) == (1.0, 5, 5, True)


def test_a_run_that_differs_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter(torch.tensor([float(i > 2)]) for i in range(6))
    monkeypatch.setattr(fused, "ours", lambda _: (lambda: (next(draws),), None))
    row = repeated_row(CPU, num_tokens=60, runs=5)
    assert (row.ours, row.passes) == (2, False)


def test_errors_are_to_fp64() -> None:
    row = exactness_row(CPU, num_tokens=200)
    assert 1e-4 < row.ours < 1e-2
    assert 1e-4 < row.theirs < 1e-2
    assert row.gate == 1 / 1.5
