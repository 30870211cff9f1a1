"""Requests and results as messages: trees of JSON beside raw buffers, without pickle.

parcel = Parcel(); tree = parcel.order(order)
order = Opened(parcel.buffers).order(tree)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trimodal.batch import Modality
from trimodal_serving.channel import Buffer
from trimodal_serving.engine import Embedding
from trimodal_serving.errors import ServingError
from trimodal_serving.fulfilment import Made
from trimodal_serving.inputs import Input, Source
from trimodal_serving.media import EncodedMedium, RawMedium, TokenIds
from trimodal_serving.orders import Order

Tree = Any
DTYPES = ("float32", "uint8")
"""Of the arrays that are sent."""


class Parcel:
    """Turns values into JSON; what is large goes into `buffers`."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def _put(self, data: Buffer) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1

    def inputs(self, inputs: Sequence[Input]) -> Tree:
        """Inputs, whose media have not been opened."""
        return [self._input(item) for item in inputs]

    def _input(self, item: Input) -> Tree:
        media = [[int(m), *self._source(source)] for m, source in item.media.items()]
        return {"where": item.where, "media": media, "keep": item.keep}

    def _source(self, source: Source) -> tuple[str, str | int | list[int]]:
        if isinstance(source, str):
            return "text", source
        if isinstance(source, TokenIds):
            return "pieces", list(source.ids)
        if isinstance(source, EncodedMedium):
            return "base64", self._put(source.base64.encode("ascii"))
        return "raw", self._put(source.decode())

    def order(self, order: Order) -> Tree:
        """What is to be generated."""
        return {
            "item": self._input(order.item),
            "to": int(order.to),
            "lang": order.lang,
            "answer": order.answer,
            "begun": order.begun,
            "size": order.size,
            "decoding": dict(order.decoding),
            "seeds": list(order.seeds),
            "partial": order.partial,
        }

    def array(self, array: np.ndarray) -> Tree:
        """An array of one of `DTYPES`."""
        whole = np.ascontiguousarray(array)
        return {"dtype": whole.dtype.name, "shape": whole.shape, "data": self._put(whole.tobytes())}

    def embeddings(self, embeddings: Sequence[Embedding]) -> Tree:
        """Vectors and the tokens that they are of."""
        vectors = np.stack([one.vector for one in embeddings])
        tokens = [_counts(one.tokens) for one in embeddings]
        return {"vectors": self.array(vectors), "tokens": tokens}

    def output(self, output: str | np.ndarray) -> Tree:
        """A text, a picture or samples."""
        return output if isinstance(output, str) else self.array(output)

    def made(self, made: Made) -> Tree:
        """What was generated."""
        outputs = [self.output(one) for one in made.outputs]
        return {
            "outputs": outputs,
            "tokens": _counts(made.tokens),
            "new_tokens": made.new_tokens,
            "cut": made.cut,
            "seconds": made.seconds,
            "sample_rate": made.sample_rate,
        }


class Opened:
    """Turns JSON back into values, with the buffers that came along.

    The other process is ours, so a tree of another shape is a mistake in the program, and raises
    whatever Python raises; sizes are checked all the same.
    """

    def __init__(self, buffers: Sequence[bytes]) -> None:
        self._buffers = buffers

    def inputs(self, tree: Tree) -> list[Input]:
        """See `Parcel.inputs`."""
        return [self._input(item) for item in tree]

    def _input(self, tree: Tree) -> Input:
        media = {Modality(m): self._source(Modality(m), *rest) for m, *rest in tree["media"]}
        return Input(tree["where"], media, tree["keep"])

    def _source(self, modality: Modality, kind: str, value: Any) -> Source:
        if kind == "text":
            return value
        if kind == "pieces":
            return TokenIds(tuple(value))
        data = self._buffers[value]
        if kind == "base64":
            return EncodedMedium(modality, data.decode("ascii"))
        return RawMedium(modality, data)

    def order(self, tree: Tree) -> Order:
        """See `Parcel.order`."""
        size = tree["size"]
        return Order(
            item=self._input(tree["item"]),
            to=Modality(tree["to"]),
            lang=tree["lang"],
            answer=tree["answer"],
            begun=tree["begun"],
            size=None if size is None else (size[0], size[1]),
            decoding=tree["decoding"],
            seeds=tree["seeds"],
            partial=tree["partial"],
        )

    def array(self, tree: Tree) -> np.ndarray:
        """See `Parcel.array`; it can be written to.

        Raises:
            ValueError: an array of another type or size than it says.
        """
        if tree["dtype"] not in DTYPES:
            raise ValueError("an array of another type")
        flat = np.frombuffer(bytearray(self._buffers[tree["data"]]), tree["dtype"])
        return flat.reshape(tree["shape"])

    def embeddings(self, tree: Tree) -> list[Embedding]:
        """See `Parcel.embeddings`."""
        vectors = self.array(tree["vectors"])
        pairs = zip(vectors, tree["tokens"], strict=True)
        return [Embedding(vector, _modalities(tokens)) for vector, tokens in pairs]

    def output(self, tree: Tree) -> str | np.ndarray:
        """See `Parcel.output`."""
        return tree if isinstance(tree, str) else self.array(tree)

    def made(self, tree: Tree) -> Made:
        """See `Parcel.made`."""
        outputs = [self.output(one) for one in tree["outputs"]]
        return Made(
            outputs,
            _modalities(tree["tokens"]),
            tree["new_tokens"],
            tree["cut"],
            tree["seconds"],
            tree["sample_rate"],
        )


def error_tree(error: ServingError) -> Tree:
    """A refusal; its cause stays in the process that knows it, and is logged there."""
    return {
        "status": error.status,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "retry_after": error.retry_after,
    }


def error_of(tree: Tree) -> ServingError:
    """See `error_tree`."""
    return ServingError(
        tree["status"],
        tree["code"],
        tree["message"],
        param=tree["param"],
        retry_after=tree["retry_after"],
    )


def _counts(tokens: Mapping[Modality, int]) -> Tree:
    return [[int(modality), count] for modality, count in tokens.items()]


def _modalities(tree: Tree) -> dict[Modality, int]:
    return {Modality(modality): count for modality, count in tree}
