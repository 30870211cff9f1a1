import json
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal_serving.engine import Embedding
from trimodal_serving.errors import ServingError
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input, parse_inputs
from trimodal_serving.media import RawMedium
from trimodal_serving.messages import Opened, Parcel, error_of, error_tree
from trimodal_serving.orders import Order


def sent(tree: Any) -> Any:
    return json.loads(json.dumps(tree))


def opened(parcel: Parcel) -> Opened:
    return Opened([bytes(buffer) for buffer in parcel.buffers])


def test_inputs_come_out_as_they_went_in() -> None:
    inputs = parse_inputs(["red \ud800", {"image": "AAAA", "text": "七"}, {"audio": "BBBB"}], None)
    inputs.append(Input("file", {Modality.SPEECH: RawMedium(Modality.SPEECH, b"\x00\xff")}))
    parcel = Parcel()
    tree = sent(parcel.inputs(inputs))
    assert opened(parcel).inputs(tree) == inputs
    assert "AAAA" not in json.dumps(tree)


@pytest.mark.parametrize(
    "order",
    [
        Order(item=Input("prompt", {Modality.TEXT: "red"}), to=Modality.VISION, size=(8, 16)),
        Order(
            item=Input("messages[0].content", {}),
            to=Modality.TEXT,
            lang="zh",
            begun="红",
            decoding={"temperature": 0.5, "max_tokens": 3},
            seeds=[3, 2**62],
        ),
    ],
)
def test_orders_come_out_as_they_went_in(order: Order) -> None:
    parcel = Parcel()
    tree = sent(parcel.order(order))
    got = opened(parcel).order(tree)
    for name in ("item", "to", "lang", "begun", "answer", "size", "decoding"):
        assert getattr(got, name) == getattr(order, name)
    assert list(got.seeds) == list(order.seeds)


def test_results_come_out_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 8)).astype(np.float32)
    embeddings = [Embedding(vector, {Modality.TEXT: 4}) for vector in vectors]
    picture = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    made = Made(["七", picture, vectors[0], vectors[0][:0]], {Modality.SPEECH: 9}, 7, True, 1.5, 8)
    parcel = Parcel()
    tree = sent([parcel.embeddings(embeddings), parcel.made(made)])
    got = opened(parcel)
    for one, other in zip(got.embeddings(tree[0]), embeddings, strict=True):
        assert one.vector.tobytes() == other.vector.tobytes()
        assert one.tokens == other.tokens
    back = got.made(tree[1])
    assert back.outputs[0] == "七"
    for one, other in zip(back.outputs[1:], made.outputs[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert (back.tokens, back.new_tokens, back.cut) == (made.tokens, 7, True)
    assert (back.seconds, back.sample_rate) == (1.5, 8)


@pytest.mark.parametrize(
    "change", [{"dtype": "object"}, {"dtype": "float64"}, {"shape": [3]}, {"shape": [1 << 40]}]
)
def test_arrays_that_are_not_what_they_say_are_refused(change: dict[str, Any]) -> None:
    parcel = Parcel()
    tree = {**parcel.array(np.zeros(4, np.float32)), **change}
    with pytest.raises(ValueError, match="array"):
        opened(parcel).array(tree)


def test_refusals_come_out_as_they_went_in() -> None:
    error = ServingError(429, "queue_full", "later", param="input[3]", retry_after=7)
    got = error_of(sent(error_tree(error)))
    assert (got.envelope(), got.headers()) == (error.envelope(), error.headers())
