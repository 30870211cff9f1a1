from types import SimpleNamespace

import pytest

from trimodal_serving import quotas as module
from trimodal_serving.caller import Usage
from trimodal_serving.errors import ServingError
from trimodal_serving.keys import Limits
from trimodal_serving.quotas import Quota


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def refused(quota: Quota) -> ServingError:
    with pytest.raises(ServingError) as caught:
        quota.enter()
    assert caught.value.status == 429
    return caught.value


def visit(quota: Quota, **usage: float) -> None:
    quota.enter()
    quota.leave(Usage(**usage))  # type: ignore[arg-type]


def test_requests_of_a_minute(clock: Clock) -> None:
    quota = Quota(Limits(requests=3))
    for _ in range(3):
        visit(quota)
    error = refused(quota)
    assert (error.code, error.retry_after) == ("rate_limit", 20)
    clock.now += 20
    visit(quota)
    assert refused(quota).retry_after == 20
    clock.now += 3600
    for _ in range(3):
        visit(quota)
    refused(quota)


@pytest.mark.parametrize("name", ["tokens", "pixels", "audio_seconds"])
def test_what_was_used_beyond_has_to_fill_up(clock: Clock, name: str) -> None:
    quota = Quota(Limits(**{name: 60.0}))  # type: ignore[arg-type]
    visit(quota, **{name: 90})
    error = refused(quota)
    assert (error.code, error.retry_after) == ("quota", 31)
    assert name.replace("_", " ") in error.message
    clock.now += 31
    visit(quota, **{name: 0})


def test_amounts_do_not_touch_each_other(clock: Clock) -> None:
    quota = Quota(Limits(tokens=10, pixels=10))
    visit(quota, audio_seconds=1000)
    visit(quota, tokens=11)
    assert "tokens" in refused(quota).message
    clock.now += 30
    visit(quota)


def test_requests_at_the_same_time(clock: Clock) -> None:
    quota = Quota(Limits(in_flight=2))
    quota.enter()
    quota.enter()
    assert refused(quota).code == "too_many_in_flight"
    quota.leave(Usage())
    quota.enter()


def test_what_is_left_is_told_as_by_openai(clock: Clock) -> None:
    quota = Quota(Limits(requests=10, tokens=600, audio_seconds=0.5))
    quota.enter()
    assert quota.rates(Usage(tokens=12, pixels=99)) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "588",
        "x-ratelimit-reset-tokens": "1.2s",
        "x-ratelimit-limit-audio-seconds": "0",
        "x-ratelimit-remaining-audio-seconds": "0",
        "x-ratelimit-reset-audio-seconds": "0s",
    }
    quota.leave(Usage(tokens=12))
    clock.now += 1
    assert quota.rates(Usage())["x-ratelimit-reset-tokens"] == "200ms"
    visit(quota, tokens=1288)
    rates = quota.rates(Usage())
    assert rates["x-ratelimit-remaining-tokens"] == "0"
    assert rates["x-ratelimit-reset-tokens"] == "2m9s"
    assert refused(quota).headers() == {"retry-after": "70", **quota.rates(Usage())}


def test_without_a_limit_nothing_is_told() -> None:
    assert Quota(Limits()).rates(Usage(tokens=5)) == {}


def test_a_refused_request_takes_nothing(clock: Clock) -> None:
    quota = Quota(Limits(requests=1, in_flight=1))
    quota.enter()
    for _ in range(5):
        refused(quota)
    quota.leave(Usage())
    clock.now += 60
    quota.enter()
