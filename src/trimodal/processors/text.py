"""Text in any language to ids of the unified vocabulary, by SentencePiece with byte fallback.

medium = TextProcessor.from_file("text.model", vocabulary, max_tokens=512).medium("a red circle")
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import sentencepiece
import torch

from trimodal.batch import Medium, Modality
from trimodal.errors import ConfigError, DataError, StorageError, TrimodalError
from trimodal.storage import refusal
from trimodal.vocabulary import Vocabulary

MOST_PIECES = 1_000_000
"""As many as SentencePiece picks from; with a size of 10^9 it never comes to an end."""

CHINESE = re.compile("[\u3400-\u9fff]+")
WORD_END = "\u241f"
"""The symbol for a unit separator, which no text holds by chance."""


class TextProcessor:
    """A SentencePiece model whose pieces lie in the text range of the unified vocabulary."""

    def __init__(self, proto: bytes, vocabulary: Vocabulary, max_tokens: int) -> None:
        self.proto = proto
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        if not proto:
            raise StorageError("the text tokenizer is an empty file")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except (RuntimeError, TypeError) as error:
            raise StorageError("the text tokenizer is not a SentencePiece model") from error
        if self._model.get_piece_size() > vocabulary.text.size:
            raise ConfigError(
                f"model.vocabulary.text: {vocabulary.text.size} ids are too few for the "
                f"{self._model.get_piece_size()} pieces of the tokenizer"
            )

    @classmethod
    def from_file(
        cls, path: str | Path, vocabulary: Vocabulary, max_tokens: int
    ) -> "TextProcessor":
        """Read a model that `trimodal tokenizer train text` wrote."""
        try:
            proto = Path(path).read_bytes()
        except OSError as error:
            message = f"tokenizer {path} cannot be read: {error.strerror}; "
            hint = "train one with `trimodal tokenizer train text`"
            raise refusal(message + hint, error) from error
        return cls(proto, vocabulary, max_tokens)

    def medium(self, text: str, keep: Literal["start", "end"] | None = None) -> Medium:
        """The pieces of a text.

        Args:
            text: in any language.
            keep: which `max_tokens` pieces remain of a longer text; None refuses it.

        Raises:
            DataError: empty, not valid Unicode, or longer than `max_tokens` pieces.
        """
        if not isinstance(text, str):
            raise DataError(
                f"text must be a string, got {type(text).__name__}", code="invalid_text"
            )
        if not text.strip():
            raise DataError("text is empty", code="empty_input")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                "text is not valid Unicode: it holds a lone surrogate", code="invalid_text"
            ) from None
        pieces = self._model.encode(text)
        if not pieces:
            raise DataError("text holds no visible character", code="empty_input")
        if keep is not None:
            pieces = pieces[: self.max_tokens] if keep == "start" else pieces[-self.max_tokens :]
        return self.of_pieces(pieces)

    def of_pieces(self, pieces: Sequence[int]) -> Medium:
        """A text whose pieces are known by their numbers in the SentencePiece model.

        Raises:
            DataError: none, more than `max_tokens`, or a number without a piece.
        """
        if not pieces:
            raise DataError("text has no tokens", code="empty_input")
        if len(pieces) > self.max_tokens:
            raise DataError(
                f"text has {len(pieces)} tokens, the limit is {self.max_tokens}",
                code="context_length_exceeded",
            )
        most = self.num_pieces - 1
        if min(pieces) < 0 or max(pieces) > most:
            raise DataError(
                f"a token id is not that of a piece, which are from 0 to {most}",
                code="invalid_token",
            )
        ids = torch.from_numpy(np.array(pieces, dtype=np.int64) + self.vocabulary.text.start)
        return Medium(Modality.TEXT, ids, len(pieces), (len(pieces), 1))

    @property
    def num_pieces(self) -> int:
        """How many ids of the text range have a piece."""
        return self._model.get_piece_size()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of unified-vocabulary ids.

        Raises:
            DataError: an id is not that of a piece; the range has room for more than there are.
        """
        start = self.vocabulary.text.start
        pieces = [int(i) - start for i in ids]
        for piece in pieces:
            if not 0 <= piece < self._model.get_piece_size():
                raise DataError(f"id {piece + start} is not that of a text piece")
        return self._model.decode(pieces)


def train_tokenizer(
    texts: Iterable[str], path: Path, vocab_size: int, *, within_words: bool = False
) -> int:
    """Train a SentencePiece unigram model with byte fallback (Kudo and Richardson, 2018).

    Args:
        texts: the corpus, a sentence each.
        path: where the `.model` is written.
        vocab_size: most pieces; a small corpus gives fewer. 300 hold the bytes and little else.
        within_words: no piece crosses the end of a Chinese word, as none crosses a space. A corpus
            of few phrases would else have pieces of whole phrases, and letters for all the rest.

    Returns:
        The number of pieces.

    Raises:
        DataError: the corpus has no text, or none that can be cut into pieces.
        ConfigError: `vocab_size` is too small for the bytes and the characters of the corpus, or
            above `MOST_PIECES`.
    """
    if vocab_size < 1:
        raise ConfigError(f"vocab_size: {vocab_size} is not positive")
    if vocab_size > MOST_PIECES:
        raise ConfigError(f"vocab_size: {vocab_size} is above {MOST_PIECES}")
    cut = _word_cutter() if within_words else str
    corpus = [cut(text) for text in texts if text.strip()]
    if not corpus:
        raise DataError("the manifests have no text to train a tokenizer on")
    buffer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=buffer,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=0.9999,
            split_digits=True,
            normalization_rule_name="nmt_nfkc",
            num_threads=1,  # more than one makes the result depend on timing
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
            pretokenization_delimiter=WORD_END if within_words else "",
        )
    except RuntimeError as error:
        raise _refusal(vocab_size, str(error)) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue()).get_piece_size()


def _word_cutter() -> Callable[[str], str]:
    """What marks the ends of Chinese words, as a model of BudouX finds them."""
    try:
        import budoux
    except ImportError:
        raise ConfigError(
            "Chinese words need the package budoux: pip install 'trimodal[train]'"
        ) from None
    parser = budoux.load_default_simplified_chinese_parser()
    return lambda text: CHINESE.sub(lambda run: WORD_END.join(parser.parse(run[0])), text)


def _refusal(vocab_size: int, cause: str) -> TrimodalError:
    """SentencePiece says why only in words."""
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", cause)
    if least:
        return ConfigError(
            f"vocab_size: {vocab_size} is too small, these texts need at least {least[1]}"
        )
    return DataError(f"no tokenizer can be trained on these texts: {' '.join(cause.split())}")
