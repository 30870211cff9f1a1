import pytest
import torch

from trimodal.bench import ragged
from trimodal.bench.peers import PEERS, Packed, Run
from trimodal.bench.ragged import new_shapes_row, running, workload_rows
from trimodal.bench.workloads import WORKLOADS, Problem
from trimodal.errors import NumericError

CPU = torch.device("cpu")


def _spoiled(problem: Problem) -> tuple[Run, Packed]:
    run, packed = PEERS["padded SDPA"](problem)
    return run, lambda grads: tuple(1.1 * x for x in packed(grads))


def _absent(_: Problem) -> tuple[Run, Packed]:
    raise NotImplementedError("no such kernel\nfor this device")


def test_every_workload_has_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "PEERS", {n: PEERS[n] for n in ("padded SDPA", "bucketed SDPA")})
    rows = workload_rows(CPU, torch.float32, shapes=2, num_tokens=60)
    assert len(rows) == 2 * len(WORKLOADS) + 3
    for name in WORKLOADS:
        assert sum(f"attention, {name}," in row.name for row in rows if row.theirs) == 2
    gates = {row.name: row.gate for row in rows if row.gate}
    assert sorted(gates.values()) == [1.0, 1.05, 1.4, 2.0]
    absent = [row.name for row in rows if row.gate and not row.theirs]
    assert [name.partition("against ")[2] for name in absent] == [
        "FlexAttention, which did not run",
        "varlen_attn, which did not run",
    ], "a gate does not go with a peer that is not there"
    measured = [row for row in rows[:-1] if row.theirs]
    best = [min(a.ratio, b.ratio) for a, b in zip(measured[::2], measured[1::2], strict=True)]
    assert rows[-1].ratio == sorted(best)[2], "of seven the fifth best has two below it"


def test_a_peer_that_does_not_run_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ragged, "PEERS", {"a": _absent, "b": PEERS["padded SDPA"]})
    problem = Problem.draw([4, 9], CPU, torch.float32)
    assert running(problem) == ["b"]
    assert capsys.readouterr().err == "bench: a does not run here: no such kernel\n"


def test_what_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ragged, "PEERS", {"a": _spoiled})
    with pytest.raises(NumericError, match=r"attention by a and by ours differ by 9\.1e-02"):
        running(Problem.draw([4, 9], CPU, torch.float32))


def test_new_shapes_are_timed_once_each() -> None:
    row = new_shapes_row(CPU, shapes=3, num_tokens=40)
    assert (row.gate, row.unit) == (2.0, "ms")
    assert "3 new shapes" in row.name
    assert min(row.ours, row.theirs) > 0
