import pytest

from trimodal_serving.admission import LONGEST_RETRY, Admission
from trimodal_serving.caller import Caller, acting
from trimodal_serving.errors import ServingError


def test_the_request_that_crosses_the_line_is_let_in_and_the_next_is_not() -> None:
    admission = Admission(capacity=10)
    with admission.admit(9), admission.admit(1000):
        with pytest.raises(ServingError) as caught, admission.admit(1):
            pass
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert caught.value.headers() == {"retry-after": "1"}
    assert admission.idle
    with admission.admit(1):
        assert admission.tokens == 1


def test_a_corrected_ticket_makes_room() -> None:
    admission = Admission(capacity=10)
    with admission.admit(100) as ticket:
        ticket.settle(3)
        with admission.admit(4):
            assert admission.tokens == 7


def test_a_failed_request_gives_back_what_it_held() -> None:
    admission = Admission(capacity=10)
    with pytest.raises(RuntimeError), admission.admit(10):
        raise RuntimeError
    assert admission.idle


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.5, "1"), (5.0, "6"), (100.0, str(LONGEST_RETRY))]
)
def test_retry_after_is_the_time_that_the_work_inside_takes(seconds: float, expected: str) -> None:
    admission = Admission(capacity=1000)
    admission.observe(1000, seconds)
    with admission.admit(1100), pytest.raises(ServingError) as caught, admission.admit(1):
        pass
    assert caught.value.headers() == {"retry-after": expected}


def test_speed_follows_later_batches() -> None:
    admission = Admission(capacity=1000)
    admission.observe(1000, 50.0)
    for _ in range(50):
        admission.observe(1000, 3.0)
    with admission.admit(1000), pytest.raises(ServingError) as caught, admission.admit(1):
        pass
    assert caught.value.retry_after == 4


def test_one_large_batch_tells_more_than_many_small_ones() -> None:
    """A token of a small batch takes longer, and what waits comes in large ones."""
    admission = Admission(capacity=1_000)
    admission.observe(10_000, 4.0)
    for _ in range(100):
        admission.observe(5, 0.01)
    with admission.admit(10_000), pytest.raises(ServingError) as caught, admission.admit(1):
        pass
    assert caught.value.retry_after in (4, 5, 6)


def test_what_one_generates_leaves_room_for_what_it_embeds() -> None:
    admission = Admission(capacity=10)
    drawing = Caller("alice", generates=True)
    with acting(drawing), admission.admit(1_000):
        with pytest.raises(ServingError):
            admission.check()
        with acting(Caller("alice")), admission.admit(4):
            assert admission.requests == 2
            with admission.admit(4), pytest.raises(ServingError):
                admission.check()
    assert admission.idle
