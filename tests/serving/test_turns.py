from collections import Counter

import pytest

from trimodal_serving.turns import Turns


def served(turns: Turns[str], count: int) -> list[str]:
    """Jobs one at a time, as batches of one would take them."""
    jobs = []
    for _ in range(count):
        number, _ = turns.waiting()[0]
        jobs += turns.take([number])
    return jobs


def test_alone_the_oldest_is_first() -> None:
    turns = Turns[str]()
    for job in "abc":
        turns.add(("alice", "text"), job, 5)
    assert list(turns) == [job for _, job in turns.waiting()] == served(turns, 3) == list("abc")
    assert len(turns) == 0


def test_a_tenant_waits_for_no_other_s_backlog() -> None:
    turns = Turns[str]()
    for _ in range(1000):
        turns.add(("noisy", "text"), "n", 1)
    served(turns, 100)
    turns.add(("quiet", "text"), "q", 1)
    assert "q" in served(turns, 2)


def test_shares_are_equal_in_cost_and_not_in_number() -> None:
    turns = Turns[str]()
    for _ in range(100):
        turns.add(("large", "text"), "l", 10)
        turns.add(("small", "text"), "s", 1)
    counts = Counter(served(turns, 55))
    assert counts["s"] == pytest.approx(50, abs=2)
    assert counts["l"] == pytest.approx(5, abs=2)


def test_lanes_of_a_tenant_share_what_is_the_tenant_s() -> None:
    turns = Turns[str]()
    for _ in range(100):
        for lane in ("text", "image", "speech"):
            turns.add(("three", lane), "three", 1)
            turns.add(("one", "text"), "one", 1)
    counts = Counter(served(turns, 100))
    assert counts["one"] == pytest.approx(50, abs=2)


def test_idling_saves_nothing_up() -> None:
    turns = Turns[str]()
    turns.add(("late", "text"), "early", 1)
    served(turns, 1)
    for _ in range(200):
        turns.add(("busy", "text"), "b", 1)
    served(turns, 100)
    for _ in range(50):
        turns.add(("late", "text"), "l", 1)
    assert Counter(served(turns, 40))["l"] == pytest.approx(20, abs=2)


def test_a_price_is_a_share() -> None:
    turns = Turns[str]({"bulk": 8.0})
    for _ in range(200):
        turns.add(("interactive", "a"), "i", 1)
        turns.add(("bulk", "a"), "b", 1)
    assert Counter(served(turns, 90))["b"] == pytest.approx(10, abs=2)


def test_nobody_pays_for_what_is_dropped() -> None:
    turns = Turns[str]()
    dropped = [turns.add(("gone", "text"), "g", 100) for _ in range(50)]
    for _ in range(4):
        turns.add(("stays", "text"), "s", 1)
    for number in dropped:
        turns.drop(number)
        turns.drop(number)
    turns.add(("gone", "text"), "g", 1)
    assert "g" in served(turns, 2)
    assert len(turns) == 3


def test_looking_changes_nothing_and_a_batch_is_chosen_across_tenants() -> None:
    turns = Turns[str]()
    for job in ("a1", "a2", "a3"):
        turns.add(("a", "text"), job, 2)
    turns.add(("b", "text"), "b1", 2)
    first = turns.waiting()
    assert first == turns.waiting()
    assert sorted(job for _, job in first[:2]) == ["a1", "b1"]
    assert sorted(turns.take([number for number, _ in first[:2]])) == ["a1", "b1"]
    assert [job for _, job in turns.waiting()] == ["a2", "a3"]
