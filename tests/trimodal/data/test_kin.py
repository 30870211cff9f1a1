"""Media of other rows that mean the same."""

from pathlib import Path

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.data.kin import Kin
from trimodal.data.row import Row

V, T, S = Modality


def row(name: str, image: str | None = None, speech: str | None = None, *texts: str) -> Row:
    return Row(
        id=name,
        image=Path(image) if image else None,
        speech=Path(speech) if speech else None,
        texts=dict.fromkeys(texts, "seven"),
        where=f"here:{name}",
    )


ROWS = [
    row("0", "a.png", "a.wav", "en"),
    row("1", "b.png", None, "en", "zh"),
    row("2", "a.png", "b.wav"),
    row("3", None, "b.wav"),
    row("4", "c.png", "c.wav"),
    row("5", None, None, "en"),
    row("6", "d.png", "d.wav", "zh", "en"),
    row("7", "d.png", "e.wav"),
]
GROUPS = [1, 1, 1, 1, 2, 1, 3, 3]
"""Row 4 is alone; the two rows of group 3 share a picture."""


@pytest.fixture
def kin() -> Kin:
    return Kin(ROWS, GROUPS)


def drawn(kin: Kin, index: int, modality: Modality, times: int = 200) -> set[str]:
    rng = np.random.default_rng(0)
    rows = [kin.draw(index, modality, rng) for _ in range(times)]
    paths = [row.image if modality is V else row.speech for row in rows]
    assert None not in paths
    return {str(path) for path in paths}


def test_which_rows_have_kin(kin: Kin) -> None:
    expected = [{V, S}, {V, S, T}, {V, S}, {V, S}, set(), {V, S}, {S, T}, {S}]
    assert [set(kin.modalities(i)) for i in range(len(ROWS))] == expected


def test_every_other_file_of_the_meaning_is_drawn_and_never_the_own(kin: Kin) -> None:
    pictures = [{"b.png"}, {"a.png"}, {"b.png"}, {"a.png", "b.png"}, None, {"a.png", "b.png"}]
    speech = [{"b.wav"}, {"a.wav", "b.wav"}, {"a.wav"}, {"a.wav"}, None, {"a.wav", "b.wav"}]
    for modality, expected in ((V, pictures), (S, speech)):
        for index, names in enumerate(expected):
            if names is not None:
                assert drawn(kin, index, modality) == names
    assert drawn(kin, 6, S) == {"e.wav"}


def test_a_file_counts_once_however_many_rows_name_it() -> None:
    rows = [row(f"{i}", None, "often.wav") for i in range(98)]
    rows += [row("98", None, "rare.wav"), row("99", "own.png")]
    kin, rng = Kin(rows, [0] * 100), np.random.default_rng(0)
    found = [kin.draw(99, S, rng).speech for _ in range(400)]
    assert 140 < found.count(Path("rare.wav")) < 260


def test_a_draw_depends_on_its_generator_alone(kin: Kin) -> None:
    first, second = (
        [kin.draw(5, V, np.random.default_rng(seed)).image for seed in range(20)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 2


def test_rows_of_other_groups_are_no_kin(kin: Kin) -> None:
    for index in (4, 6, 7):
        for modality in set(kin.modalities(index)) - {T}:
            assert drawn(kin, index, modality) <= {"d.png", "d.wav", "e.wav"}


def test_nothing_to_draw_is_a_mistake_of_the_caller(kin: Kin) -> None:
    with pytest.raises(LookupError, match="here:6 has no kin of image"):
        kin.draw(6, V, np.random.default_rng(0))
