"""Generation of one modality from any others by a model with its processor.

texts = generate(model, samples, Request(to=Modality.TEXT, lang="zh"), Decoding(), seeds=[0, 1])
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from trimodal.assembly import Writing
from trimodal.batch import Medium, Modality, Sample, Target
from trimodal.config import LANGUAGES
from trimodal.errors import ConfigError, DataError
from trimodal.models.cache import KeyValueCache
from trimodal.models.decoding import Codes, Decoding, Grown, Texts, draw_length
from trimodal.models.prefix import Prefix
from trimodal.models.redraws import Redraws
from trimodal.packing import first_fit
from trimodal.processors import TrimodalProcessor
from trimodal.processors.codes import CodeProcessor
from trimodal.vocabulary import prompt

if TYPE_CHECKING:
    from trimodal.models.trimodal import TrimodalModel


def modality_of(name: str) -> Modality:
    """The modality that is called `image`, `text` or `speech`.

    Raises:
        ConfigError: it is called otherwise.
    """
    names = [modality.data_name for modality in Modality]
    if name not in names:
        raise ConfigError(f"{name!r} is not one of {', '.join(names)}")
    return Modality.of(name)


def default_decoding(to: Modality) -> Decoding:
    """The most likely text; drawn pictures and speech, a little guided."""
    if to is Modality.TEXT:
        return Decoding(temperature=0.0)
    return Decoding(guidance=1.5)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be generated, the same for all samples of a call.

    Raises:
        ConfigError: a language or a combination that there is not.
    """

    to: Modality
    lang: str | None = None
    """In which language a text or an utterance is to be; None leaves it open."""
    answer: bool = False
    """Answer what the text or the speech asks, instead of saying the same."""
    size: tuple[int, int] | None = None
    """Height and width of a picture in pixels; None takes that of the architecture."""

    def __post_init__(self) -> None:
        if self.lang is not None and self.lang not in LANGUAGES:
            raise ConfigError(f"lang must be {' or '.join(LANGUAGES)}, got {self.lang!r}")
        if self.answer and self.to is not Modality.TEXT:
            raise ConfigError("an answer is a text; it cannot be generated as another modality")

    @property
    def prompt(self) -> tuple[int, ...]:
        """The special tokens that ask for it."""
        lang = None if self.to is Modality.VISION else self.lang
        return prompt(self.to, lang, answer=self.answer)


@dataclass(frozen=True)
class Wanted:
    """One output that is to be generated."""

    sample: Sample
    """What is observed; without media, nothing is."""
    request: Request
    decoding: Decoding
    seed: int
    """Nothing else decides its draws."""
    begun: Medium | None = None
    """A text that the output begins with, for completions."""


@dataclass(frozen=True)
class Generation:
    """The ids of one output, and what they stand for."""

    target: Target
    output: str | np.ndarray
    """A text, an (H, W, 3) uint8 picture, or (S,) float32 samples in [-1, 1]."""


def generate(
    model: "TrimodalModel",
    samples: Sequence[Sample],
    request: Request,
    decoding: Decoding,
    seeds: Sequence[int],
    begun: Sequence[Medium | None] | None = None,
    token_budget: int = 16_384,
) -> list[Generation]:
    """Generate one output for each sample, the same alone or together.

    Args:
        model: with its processor.
        samples: what is observed; without media, nothing is.
        request: what to generate.
        decoding: how ids are chosen.
        seeds: of each sample; nothing else decides its draws.
        begun: texts that the outputs begin with, for completions.
        token_budget: tokens of prefixes and targets that are held at once.

    Raises:
        ConfigError: the model was not trained to generate that, lacks the tokenizer, or writes
            no text of so many pieces.
        DataError: a picture of that size cannot be made of codes.
    """
    was_training = model.training
    outputs, room = Outputs(model, request.to), check_room(model, request, decoding)
    wanted = [
        Wanted(sample, request, decoding, seed, text)
        for sample, seed, text in zip(samples, seeds, begun or [None] * len(samples), strict=True)
    ]
    costs = [
        2 * one.sample.num_tokens + room + (one.begun.num_tokens if one.begun else 0)
        for one in wanted
    ]
    found: dict[int, Generation] = {}
    model.eval()
    try:
        for indices in first_fit(costs, token_budget):
            outputs.add({i: wanted[i] for i in indices})
            while len(outputs):
                found.update(outputs.step()[1])
    finally:
        model.train(was_training)
    return [found[i] for i in range(len(samples))]


class Outputs:
    """Outputs of one modality that are generated together, each at a step of its own.

    All of them are guided or none is; for the rest each is requested and decoded in its own way.
    Others may be added between two steps, and be dropped; each is what it would be alone.
    """

    def __init__(self, model: "TrimodalModel", to: Modality) -> None:
        """Begin with none.

        Args:
            model: with its processor, in evaluation mode.
            to: what is generated.

        Raises:
            ConfigError: the model lacks the processor.
        """
        self._model = model
        self._to = to
        self._cache: KeyValueCache | None = None
        self._drafts = Texts() if to is Modality.TEXT else Codes()
        self._redraws = Redraws(_processor(model), to)
        self._wanted: dict[int, Wanted] = {}

    def __len__(self) -> int:
        """How many are not done."""
        return len(self._drafts)

    @torch.inference_mode()
    def add(self, wanted: Mapping[int, Wanted]) -> None:
        """Compute what some more observe.

        Args:
            wanted: by what they are called; no other that is not done has one of these numbers.

        Raises:
            ConfigError: the model was not trained to generate that, lacks the tokenizer, or writes
                no text of so many pieces; or something else than a text is to be completed.
            DataError: there is no question to answer, or a picture of that size cannot be made of
                codes.
            NumericError: the model is broken.
        """
        for one in wanted.values():
            if one.request.answer:
                _check_question(one.sample)
            if self._to is not Modality.TEXT and one.begun is not None:
                raise ConfigError("only a text can be completed")
        self._begin(wanted)
        self._wanted.update(wanted)
        for number, one in wanted.items():
            self._redraws.watch(number, one.sample, one.decoding, one.seed)

    def _begin(self, wanted: Mapping[int, Wanted]) -> None:
        ones = list(wanted.values())
        asked = [
            Target(self._to, torch.zeros(0, dtype=torch.int64), (0, 1), one.request.prompt)
            for one in ones
        ]
        pairs = list(zip(asked, (one.sample for one in ones), strict=True))
        writings = [Writing(target, frozenset(sample.media)) for target, sample in pairs]
        observed = [sample for _, sample in pairs]
        if ones[0].decoding.guided:
            observed += [replace(sample, media={}) for _, sample in pairs]
            writings += [Writing(target, frozenset()) for target in asked]
        rooms = [check_room(self._model, one.request, one.decoding) for one in ones]
        starts = [one.begun.features if one.begun else asked[0].ids for one in ones]
        sizes = [len(start) + room for start, room in zip(starts, rooms, strict=True)]
        copies = len(observed) // len(ones)
        prefix = Prefix(self._model, observed, writings, sizes * copies, self._cache)
        self._cache = prefix.cache
        try:
            if self._to is Modality.TEXT:
                targets = [
                    replace(target, ids=ids, grid=(len(ids), 1))
                    for target, ids in zip(asked, starts, strict=True)
                ]
            else:
                targets = self._masked(prefix, ones, rooms)
            decodings, seeds = [one.decoding for one in ones], [one.seed for one in ones]
            self._drafts.begin(list(wanted), prefix, targets, decodings, seeds)
        except BaseException:
            prefix.cache.give(prefix.starts)
            raise

    def _masked(self, prefix: Prefix, ones: Sequence[Wanted], rooms: Sequence[int]) -> list[Target]:
        """Targets of the sizes that are asked for, or that the model finds, without their codes."""
        codes = _codes(self._model)
        if self._to is Modality.VISION:
            grids = [code_grid(self._model, one.request) for one in ones]
        else:
            lengths = self._model.prediction_head.lengths(prefix.last_ND[: len(ones)]).tolist()
            grids = [
                (draw_length(mean, deviation, one.decoding, one.seed, room), 1)
                for (mean, deviation), one, room in zip(lengths, ones, rooms, strict=True)
            ]
        return [
            codes.empty_target(self._to, grid, one.request.prompt)
            for grid, one in zip(grids, ones, strict=True)
        ]

    @torch.inference_mode()
    def step(self) -> tuple[Mapping[int, Grown], Mapping[int, Generation]]:
        """What there is of outputs that changed, and the outputs that are done, by number.

        One that is a copy of what it was made from begins again, see `Decoding.redraws`; of one
        that might, nothing is final.

        Raises:
            NumericError: the model is broken.
        """
        grown, done = self._drafts.step()
        grown = {
            number: one._replace(final=0) if self._redraws.may_redraw(number) else one
            for number, one in grown.items()
        }
        if not done:
            return grown, {}
        made = _outputs(self._model, self._to, list(done.values()))
        found = dict(zip(done, made, strict=True))
        seeds = self._redraws.copied({number: one.output for number, one in found.items()})
        again = {n: replace(self._wanted[n], seed=seed) for n, seed in seeds.items()}
        if again:
            self._begin(again)
        ended = {number: one for number, one in found.items() if number not in again}
        for number in ended:
            del self._wanted[number]
        return grown, ended

    def drop(self, numbers: Iterable[int]) -> None:
        """Give up those of some numbers that are not done."""
        numbers = list(numbers)
        self._drafts.drop(numbers)
        self._redraws.forget(numbers)
        for number in numbers:
            self._wanted.pop(number, None)


def _outputs(model: "TrimodalModel", to: Modality, targets: Sequence[Target]) -> list[Generation]:
    if to is Modality.TEXT:
        text = _processor(model).text
        outputs = [text.decode(target.ids.tolist()) for target in targets]
    elif to is Modality.VISION:
        outputs = _codes(model).pictures(targets)
    else:
        outputs = _codes(model).waveforms(targets)
    return [Generation(target, out) for target, out in zip(targets, outputs, strict=True)]


def _check_question(sample: Sample) -> None:
    if not {Modality.TEXT, Modality.SPEECH} & sample.media.keys():
        raise DataError(f"sample {sample.id} has no question, neither as text nor as speech")


def _processor(model: "TrimodalModel") -> TrimodalProcessor:
    if model.processor is None:
        raise ConfigError("this model has no processor")
    return model.processor


def _codes(model: "TrimodalModel") -> CodeProcessor:
    codes = _processor(model).codes
    if codes is None:
        raise ConfigError(
            "this model has no learnt tokenizers, so it writes texts alone; see data.tokenizers"
        )
    return codes


def code_grid(model: "TrimodalModel", request: Request) -> tuple[int, int]:
    """Rows and columns of the codes of a picture.

    Raises:
        ConfigError: the model draws no pictures.
        DataError: a picture of that size cannot be made of codes.
    """
    tokenizer = _codes(model).tokenizers.vision
    if tokenizer is None:
        raise ConfigError("this model has no vision tokenizer, so it draws no pictures")
    size, stride = request.size or model.architecture.picture_size, tokenizer.config.stride
    height, width = size
    most = model.architecture.vision_input.max_tokens * model.architecture.vision_codes
    whole = min(size) > 0 and not (height % stride or width % stride)
    if not whole or height * width // stride**2 > most:
        raise DataError(
            f"a picture of {height} x {width} pixels cannot be drawn: both sides must be multiples "
            f"of {stride}, and {most * stride**2} pixels are the most",
            code="invalid_size",
        )
    return height // stride, width // stride


def check_room(model: "TrimodalModel", request: Request, decoding: Decoding) -> int:
    """Ids of an output at most.

    Raises:
        ConfigError: the model was not trained to generate that or to answer questions, lacks the
            tokenizer, or writes no text of so many pieces.
        DataError: a picture of that size cannot be made of codes.
    """
    if request.to.data_name not in model.config.generates:
        learnt = ", ".join(model.config.generates) or "nothing"
        raise ConfigError(
            f"this model was not trained to generate {request.to.data_name}; it generates {learnt}"
        )
    if request.answer and model.config.answers is False:
        raise ConfigError(
            "this model was not trained to answer questions; without `answer` it describes media"
        )
    if request.to is Modality.TEXT:
        longest = max(Decoding.max_tokens, model.architecture.max_text_tokens)
        if decoding.max_tokens > longest:
            raise ConfigError(
                f"max_tokens: a text of this model has at most {longest} pieces, "
                f"got {decoding.max_tokens}"
            )
        return decoding.max_tokens
    if request.to is Modality.VISION:
        rows, columns = code_grid(model, request)
        return rows * columns
    tokenizer = _codes(model).tokenizers.speech
    if tokenizer is None:
        raise ConfigError("this model has no speech tokenizer, so it does not speak")
    speech = model.architecture.speech_input
    frames = model.architecture.spoken_seconds * 1000 / speech.hop_ms
    return max(1, int(frames / tokenizer.config.stride))
