"""A sink that reads scores and no attributions, and has nothing to close."""

import numpy as np

from hvd_xai.checkpoint.explanation import Explanation
from hvd_xai.checkpoint.run_directory import RunDirectory


class ScoresOnlyUnderTest:
    """Writes the mean score of each explanation into a text."""

    def __call__(self, run: RunDirectory, explanation: Explanation, /) -> None:
        """Adds a line."""
        with (run.path / "scores.txt").open("a") as file:
            file.write(f"{float(np.mean(explanation.column('score')))}\n")
