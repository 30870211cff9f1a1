"""The unified vocabulary."""

from trimodal.batch import Modality
from trimodal.config import LANGUAGES, VocabularyConfig
from trimodal.vocabulary import NUM_SPECIAL, Special, Vocabulary, prompt


def test_ranges_lie_end_to_end() -> None:
    vocabulary = Vocabulary(VocabularyConfig(text=512, vision=16, speech=32))
    assert vocabulary.text == (NUM_SPECIAL, 512)
    assert vocabulary.vision == (NUM_SPECIAL + 512, 16)
    assert vocabulary.speech == (NUM_SPECIAL + 528, 32)
    assert vocabulary.size == NUM_SPECIAL + 560


def test_capacity_of_a_later_range_moves_no_earlier_one() -> None:
    small = Vocabulary(VocabularyConfig(text=512, vision=16, speech=16))
    large = Vocabulary(VocabularyConfig(text=512, vision=16, speech=1024))
    assert (small.text, small.vision) == (large.text, large.vision)


def test_mask_ids_are_special_and_differ() -> None:
    ids = {Vocabulary.mask_id(modality) for modality in Modality}
    assert len(ids) == len(Modality)
    assert max(ids) < NUM_SPECIAL


def test_the_end_of_a_text_stands_right_before_its_pieces() -> None:
    vocabulary = Vocabulary(VocabularyConfig(text=512, vision=16, speech=16))
    assert vocabulary.continuations == (Special.END_TEXT, 513)
    assert vocabulary.text.start == Special.END_TEXT + 1


def test_each_modality_has_its_range() -> None:
    vocabulary = Vocabulary(VocabularyConfig(text=512, vision=16, speech=32))
    ranges = [vocabulary.range_of(modality) for modality in Modality]
    assert ranges == [vocabulary.vision, vocabulary.text, vocabulary.speech]


def test_special_tokens_differ_and_fit() -> None:
    assert len({int(token) for token in Special}) == len(Special)
    assert max(Special) < NUM_SPECIAL
    assert {Vocabulary.mask_id(m) for m in Modality}.isdisjoint(range(Special.NOTHING, NUM_SPECIAL))


def test_a_prompt_says_what_is_wanted() -> None:
    assert prompt(Modality.VISION) == (Special.BEGIN_VISION,)
    assert prompt(Modality.SPEECH, "en") == (Special.BEGIN_SPEECH, Special.ENGLISH)
    answer = prompt(Modality.TEXT, "zh", answer=True)
    assert answer == (Special.BEGIN_TEXT, Special.CHINESE, Special.ANSWER)
    prompts = {
        prompt(modality, lang, answer=answer)
        for modality in Modality
        for lang in (None, *LANGUAGES)
        for answer in (False, True)
    }
    assert len(prompts) == 18
