"""How much of what a judge recognises survives what is done to media, as becoming codes and back.

survival = Survival(judges, "image", rows, paths)
results = survival.measure({"": judges.judge_images(survival.chosen(pictures))})
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from trimodal.data import Row
from trimodal.errors import ConfigError, DataError
from trimodal.evaluation.judge_training import labelled_media
from trimodal.evaluation.judges import Input, Judged, Judges, judge_files
from trimodal.storage import Source, resolved

T = TypeVar("T")


class Survival:
    """The files of a modality whose label the judges know, each once.

    Args:
        judges: they must know the modality.
        name: of the modality.
        rows: of manifests.
        paths: every file of the modality that the rows name, each once; results are about these.

    Raises:
        ConfigError: the judges do not know the modality.
        DataError: no row has a label that they know, or a file has two labels.
    """

    def __init__(
        self, judges: Judges, name: Input, rows: Sequence[Row], paths: Sequence[Source]
    ) -> None:
        if name not in judges.config.inputs:
            raise ConfigError(
                f"--judges: these judges know no {name}, only {judges.config.inputs[0]}"
            )
        one_name = [
            replace(
                row,
                image=row.image and resolved(row.image),
                speech=row.speech and resolved(row.speech),
            )
            for row in rows
        ]
        self.judges = judges
        self.name: Input = name
        self.files = labelled_media(one_name, name, judges.labels)
        if not self.files:
            raise DataError(
                f"no row of the manifests has {name} and a label that these judges know"
            )
        places = {resolved(path): i for i, path in enumerate(paths)}
        self.places = [places[file.path] for file in self.files]
        self._label_N = np.array([judges.labels.index(str(file.label)) for file in self.files])

    def chosen(self, items: Sequence[T]) -> list[T]:
        """Of one item for each path, those whose label is known."""
        return [items[i] for i in self.places]

    def measure(self, judged: Mapping[str, Judged]) -> dict[str, float]:
        """How often the judge is right, as fractions.

        Args:
            judged: by what was done to the media, which may have no name, the verdicts on what
                became of `files`, in their order.

        Returns:
            `judged_originals`, the files themselves; for what has no name `judged`, and `kept`,
            how much more that is than `judged_originals`, below 0 where something was lost; for
            what has a name the same as `judged_NAME` and `kept_NAME`.

        Raises:
            DataError: `FILE:LINE: cause`, a file cannot be read.
        """
        originals = self._share(judge_files(self.judges, self.name, self.files))
        results = {"judged_originals": originals}
        for name, verdicts in judged.items():
            share, ending = self._share(verdicts), f"_{name}" if name else ""
            results |= {f"judged{ending}": share, f"kept{ending}": share - originals}
        return results

    def _share(self, verdicts: Judged) -> float:
        return float(np.mean(verdicts[0].argmax(axis=1) == self._label_N))
