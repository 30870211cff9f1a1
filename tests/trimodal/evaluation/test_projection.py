import numpy as np
import pytest

from trimodal.data import Row
from trimodal.evaluation import projection
from trimodal.evaluation.projection import MOST_COLOURS, SIZE, project


def _vectors(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = {name: rng.standard_normal((size, 8)) for name in ("image", "text", "speech")}
    return {
        name: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
        for name, v in vectors.items()
    }


def _rows(size: int, labels: int) -> list[Row]:
    return [Row(id=str(i), label=f"label {i % labels}" if labels else None) for i in range(size)]


def test_points_lie_in_the_square_and_are_the_same_again() -> None:
    rows, vectors = _rows(20, 3), _vectors(20)
    vectors["text"][:5] = np.nan
    found = project(rows, vectors)
    assert found is not None
    assert len(found.points) == 55
    assert all(0 <= p.x <= SIZE and 0 <= p.y <= SIZE for p in found.points)
    assert found.labels == ["label 0", "label 1", "label 2"]
    assert not found.others
    assert project(rows, vectors) == found


def test_clusters_stay_together() -> None:
    rng = np.random.default_rng(0)
    centre = np.eye(8)[np.arange(40) % 2]
    vectors = {
        name: (centre + 0.05 * rng.standard_normal((40, 8))).astype(np.float32)
        for name in ("image", "text", "speech")
    }
    found = project(_rows(40, 2), vectors)
    assert found is not None
    places = np.array([(p.x, p.y) for p in found.points])
    colours = np.array([p.colour for p in found.points])
    middle = [places[colours == c].mean(axis=0) for c in (0, 1)]
    nearer = [np.linalg.norm(places - m, axis=1) for m in middle]
    assert ((nearer[1] < nearer[0]) == colours).all()


def test_equal_vectors_are_one_point() -> None:
    vectors = _vectors(20)
    vectors["text"][:] = vectors["text"][0]
    found = project(_rows(20, 2), vectors)
    assert found is not None
    assert [p.modality for p in found.points].count("text") == 1


def test_rare_labels_and_rows_without_one_share_a_colour() -> None:
    rows = [*_rows(MOST_COLOURS * 2 + 4, MOST_COLOURS + 2), Row(id="x")]
    found = project(rows, _vectors(len(rows)))
    assert found is not None
    assert len(found.labels) == MOST_COLOURS
    assert found.others
    assert {p.colour for p in found.points if p.title.endswith(", x")} == {MOST_COLOURS}
    without = project(_rows(12, 0), _vectors(12))
    assert without is not None
    assert without.labels == without.centres == []


def test_names_stand_once_where_modalities_meet() -> None:
    vectors = _vectors(30)
    found = project(_rows(30, 1), vectors)
    assert found is not None
    assert 1 <= len(found.centres) <= 3
    assert {label for *_, label in found.centres} == {"label 0"}


def test_too_few_vectors_are_no_picture() -> None:
    assert project(_rows(3, 1), _vectors(3)) is None


def test_a_large_manifest_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "MOST_ROWS", 30)
    size = 50
    vectors = _vectors(size)
    vectors["text"][:] = vectors["speech"][:] = np.nan
    found = project(_rows(size, 2), vectors)
    assert found is not None
    assert len(found.points) == found.num_rows == 30
