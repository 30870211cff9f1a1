import numpy as np
import pytest

from trimodal.evaluation import retrieval
from trimodal.evaluation.retrieval import nearest, number_keys, score


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _random(size: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    return _unit(np.random.default_rng(seed).standard_normal((size, dim)))


def test_values_by_hand() -> None:
    gallery = _unit(np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]]))
    queries = _unit(np.array([[1, 0], [0, 1]]))
    # query 0 ranks 0 1 2 3 and wants 1 and 3; query 1 ranks 3 2 1 0 and wants 3
    found = score(queries, gallery, np.array([7, 8]), np.array([1, 7, 2, 7]))
    assert found is not None
    assert found["queries"] == 1
    assert found["unanswerable"] == 1
    assert found["mAP"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["median_rank"] == 2
    assert (found["R@1"], found["R@5"]) == (0, 1)
    found = score(queries, gallery, np.array([7, 8]), np.array([7, 1, 8, 7]))
    assert found is not None
    # ranks of the relevant: query 0: 1 and 4; query 1: 2
    assert found["mAP"] == pytest.approx(((1 / 1 + 2 / 4) / 2 + 1 / 2) / 2)
    assert found["R@1"] == 0.5
    assert found["median_rank"] == 1.5
    assert found["chance"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["gallery"] == 4


def test_one_vector_for_everything_is_no_better_than_chance() -> None:
    same = np.repeat(_random(1), 40, axis=0)
    keys = np.arange(40) % 10
    found = score(same, same, keys, keys)
    assert found is not None
    assert found["R@1"] == found["R@10"] == 0
    assert found["median_rank"] == 37  # behind all 36 that do not belong
    assert found["mAP"] < found["chance"] + 0.01


def test_nearly_equal_scores_are_ties() -> None:
    gallery = np.array([[1.0, 0.0], [1.0 - 2e-7, 0.0]], dtype=np.float32)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    for keys in (np.array([0, 1]), np.array([1, 0])):
        found = score(query, gallery, np.array([0]), keys)
        assert found is not None
        assert found["R@1"] == 0


def test_ties_among_relevant_items_cost_nothing() -> None:
    gallery = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    found = score(gallery[:1], gallery, np.array([0]), np.array([0, 0, 1]))
    assert found is not None
    assert (found["R@1"], found["mAP"]) == (1, 1)


def test_perfect_vectors_score_one() -> None:
    vectors, keys = _random(50), np.arange(50)
    found = score(vectors, vectors, keys, keys)
    assert found is not None
    assert [found[name] for name in ("R@1", "R@5", "R@10", "mAP", "median_rank")] == [1] * 5


def test_random_vectors_score_as_chance() -> None:
    size = 1500
    keys = np.arange(size) % 10
    found = score(_random(size, seed=1), _random(size, seed=2), keys, keys)
    assert found is not None
    assert found["chance"] == pytest.approx(0.1)
    spread = np.sqrt(0.1 * 0.9 / size)
    assert abs(found["R@1"] - 0.1) < 4 * spread
    assert abs(found["mAP"] - 0.1) < 0.02


def test_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    # every vector occurs twice, so there are ties in plenty
    queries, gallery = np.repeat(_random(30), 2, axis=0), np.repeat(_random(20, seed=5), 2, axis=0)
    query_keys, gallery_keys = rng.integers(0, 6, 60), rng.integers(0, 6, 40)
    expected = score(queries, gallery, query_keys, gallery_keys)
    for _ in range(3):
        q, g = rng.permutation(60), rng.permutation(40)
        found = score(queries[q], gallery[g], query_keys[q], gallery_keys[g])
        assert found == pytest.approx(expected)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = _random(23), _random(17, seed=1)
    query_keys, gallery_keys = np.arange(23) % 5, np.arange(17) % 5
    whole = score(queries, gallery, query_keys, gallery_keys)
    best = nearest(queries, gallery, 3)
    monkeypatch.setattr(retrieval, "CHUNK_SCORES", 40)
    assert score(queries, gallery, query_keys, gallery_keys) == pytest.approx(whole)
    np.testing.assert_array_equal(nearest(queries, gallery, 3)[0], best[0])


def test_nothing_to_find_is_none() -> None:
    assert score(_random(2), _random(3), np.array([1, 2]), np.array([3, 4, 5])) is None


def test_nearest_is_best_first_and_bounded_by_the_gallery() -> None:
    gallery = np.eye(3, dtype=np.float32)
    query = _unit(np.array([[0.2, 0.9, 0.5]]))
    indices, scores = nearest(query, gallery, 5)
    assert indices.tolist() == [[1, 2, 0]]
    assert np.all(np.diff(scores[0]) < 0)


def test_equal_strings_get_equal_numbers_in_every_column() -> None:
    first, second = number_keys(["b", "a", "b"], ["c", "b"])
    assert first[0] == first[2] == second[1]
    assert len({int(n) for n in (first[0], first[1], second[0])}) == 3
