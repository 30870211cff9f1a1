"""What a request wants generated, in the words of the library but without loading it.

order = Order(Input("prompt", {Modality.TEXT: "a red square"}), to=Modality.VISION)
request, decoding = order.settings()
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from trimodal.batch import Modality
from trimodal.config import LANGUAGES, SCHEDULES
from trimodal.errors import ConfigError
from trimodal_serving.errors import ServingError
from trimodal_serving.fields import Fields
from trimodal_serving.inputs import Input

if TYPE_CHECKING:
    from trimodal.models.decoding import Decoding
    from trimodal.models.generation import Request

EXTENSION = "trimodal"
"""The field of a request with what OpenAI's protocol has no words for."""
MAX_STEPS = 64
MAX_REDRAWS = 8
MAX_GUIDANCE = 100.0
MAX_TEMPERATURE = 2.0
MAX_EARLINESS = 100.0
MAX_PARTIAL = 3
"""Pictures, or utterances, before one is done that a client may ask for."""
MAX_SEED = 2**63 - 1

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One condition, and the outputs that are to be generated from it."""

    item: Input
    """What is observed; nothing, if a text is completed."""
    to: Modality
    lang: str | None = None
    answer: bool = False
    begun: str | None = None
    """What a text begins with."""
    size: tuple[int, int] | None = None
    """Height and width of a picture."""
    decoding: Mapping[str, float | int | str] = field(default_factory=dict)
    """What differs from the library's default."""
    seeds: Sequence[int] = (0,)
    """Of each output."""
    partial: int = 0
    """How often a picture or an utterance is shown before it is done, at most; for streams of one
    output. An utterance whose pieces are sent as they become final has none."""

    def settings(self) -> "tuple[Request, Decoding]":
        """The same as the library has it.

        Raises:
            ServingError: a combination that there is not.
        """
        # slow to import, but the model has done so by now
        from trimodal.models.generation import Request, default_decoding

        try:
            request = Request(to=self.to, lang=self.lang, answer=self.answer, size=self.size)
            return request, replace(default_decoding(self.to), **self.decoding)
        except ConfigError as error:
            raise unsupported(str(error), self.item.where) from None


def unsupported(message: str, param: str | None) -> ServingError:
    """The model, or the library, does not do that."""
    return ServingError(400, "unsupported_operation", message, param=param)


def check_generates(to: Modality, generates: Sequence[str], param: str | None) -> None:
    """Return if the model learnt to generate `to`.

    Raises:
        ServingError: it did not; the message says what it generates.
    """
    if to.data_name not in generates:
        known = [one.data_name for one in Modality if one.data_name in generates]
        learnt = ", ".join(known) or "nothing"
        raise unsupported(
            f"this model was not trained to generate {to.data_name}; it generates {learnt}", param
        )


def check_answers(order: Order, answers: bool | None) -> None:
    """Return if the model was trained to answer what is asked, or if nobody wrote that down.

    Raises:
        ServingError: it was not; the message says what to ask for.
    """
    if order.answer and answers is False:
        raise unsupported(
            "this model was not trained to answer questions; `trimodal.task` `describe` has it say "
            "what all parts show or say",
            order.item.where,
        )


def language_of(text: str) -> str:
    """`zh` if a text has a Chinese character, else `en`."""
    return "zh" if _CHINESE.search(text) else "en"


def take_language(fields: Fields, key: str = "lang") -> str | None:
    """A language of the model's, if one is asked for."""
    return fields.choice(key, LANGUAGES, code="unsupported_language")


def take_decoding(fields: Fields, *names: str) -> dict[str, float | int | str]:
    """What fields of these names say about the decoding."""
    found = {
        "temperature": lambda: fields.number("temperature", 0, MAX_TEMPERATURE),
        "top_p": lambda: fields.number("top_p", 1e-6, 1),
        "guidance": lambda: fields.number("guidance", 0, MAX_GUIDANCE),
        "choice_temperature": lambda: fields.number("choice_temperature", 0, MAX_GUIDANCE),
        "earliness": lambda: fields.number("earliness", 0, MAX_EARLINESS),
        "steps": lambda: fields.whole("steps", 1, MAX_STEPS),
        "schedule": lambda: fields.choice("schedule", SCHEDULES),
        "redraws": lambda: fields.whole("redraws", 0, MAX_REDRAWS),
    }
    values = {name: found[name]() for name in names}
    return {name: value for name, value in values.items() if value is not None}


def take_partial(fields: Fields, key: str) -> int:
    """How often an output is shown before it is done; never, if nothing is said."""
    return fields.whole(key, 0, MAX_PARTIAL) or 0


def take_seed(fields: Fields, outputs: int = 1) -> int:
    """The seed of the first output; 0, as in the library, if none is given."""
    return fields.whole("seed", 0, MAX_SEED - outputs) or 0
