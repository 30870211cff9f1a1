import json
import math

import pytest

from trimodal.config import TrainingConfig
from trimodal.errors import NumericError
from trimodal.training.guard import LEAST, Guard, Verdict

APPLY, SKIP, RELOAD = Verdict


def guard(spike: float = 0.0) -> Guard:
    return Guard(TrainingConfig(spike=spike))


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_three_in_a_row_give_the_weights_up(loss: float, norm: float) -> None:
    made = guard()
    assert [made.judge(loss, norm) for _ in range(3)] == [SKIP, SKIP, RELOAD]
    assert made.judge(1.0, 1.0) is APPLY


def test_a_good_step_between_begins_anew() -> None:
    made = guard()
    for _ in range(5):
        assert [made.judge(math.nan, 1.0), made.judge(math.nan, 1.0)] == [SKIP, SKIP]
        assert made.judge(1.0, 1.0) is APPLY


def test_a_second_return_to_one_checkpoint_is_refused() -> None:
    made = guard()
    for _ in range(5):
        made.judge(math.nan, 1.0)
    with pytest.raises(NumericError, match="not finite again after a return"):
        made.judge(math.nan, 1.0)
    made = guard()
    for _ in range(3):
        made.judge(math.nan, 1.0)
    made.judge(1.0, 1.0)
    made.saved()
    assert [made.judge(math.nan, 1.0) for _ in range(3)] == [SKIP, SKIP, RELOAD]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_checkpoint_of_nothing_new_is_no_progress(every: int) -> None:
    """Not even that of a spike, which is left out too."""
    made = guard(spike=6.0)
    for _ in range(LEAST):
        made.judge(1.0, 1.0)
    made.saved()
    verdicts = []
    for step, loss in enumerate([*[math.nan] * 3, 9.0, *[math.nan] * 2]):
        verdicts.append(made.judge(loss, 1.0))
        if step % every == 0:
            made.saved()
            made.restore(json.loads(json.dumps(made.state())))
    assert verdicts == [SKIP, SKIP, RELOAD, SKIP, SKIP, SKIP]
    with pytest.raises(NumericError, match="not finite again after a return"):
        made.judge(math.nan, 1.0)


def test_a_state_of_before_has_no_word_of_updates() -> None:
    state = guard().state()
    del state["applied"]
    guard().restore(state)


def test_a_spike_is_left_out_once_there_is_something_to_tell_it_from() -> None:
    losses = [5 + 0.1 * math.sin(i) for i in range(40)]
    made = guard(spike=6.0)
    assert made.judge(50.0, 1.0) is APPLY, "nothing is known yet"
    assert {made.judge(loss, 1.0) for loss in losses} == {APPLY}
    assert made.judge(50.0, 1.0) is SKIP
    assert made.judge(5.0, 1.0) is APPLY
    assert guard().judge(1e9, 1.0) is APPLY


def test_infinities_do_not_widen_what_is_normal() -> None:
    made = guard(spike=6.0)
    for i in range(LEAST):
        made.judge(5 + 0.01 * i, 1.0)
    for _ in range(2):
        made.judge(math.inf, 1.0)
    assert made.judge(9.0, 1.0) is SKIP


def test_a_new_level_is_accepted_in_time() -> None:
    made = guard(spike=6.0)
    for _ in range(128):
        made.judge(1.0, 1.0)
    verdicts = [made.judge(3.0, 1.0) for _ in range(128)]
    assert verdicts[0] is SKIP
    assert verdicts[-1] is APPLY


def test_it_goes_on_where_it_was() -> None:
    one, two = guard(spike=4.0), guard(spike=4.0)
    for i in range(30):
        one.judge(2 + 0.1 * math.cos(i), 1.0)
    one.judge(math.nan, 1.0)
    two.restore(json.loads(json.dumps(one.state())))
    for loss in (math.nan, math.nan, 9.0, 2.0, math.nan):
        assert one.judge(loss, 1.0) is two.judge(loss, 1.0)
