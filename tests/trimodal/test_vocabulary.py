"""The unified vocabulary."""

from trimodal.batch import Modality
from trimodal.config import VocabularyConfig
from trimodal.vocabulary import NUM_SPECIAL, Vocabulary


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
