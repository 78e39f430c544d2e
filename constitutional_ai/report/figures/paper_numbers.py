"""Hold numbers read off the paper's figures: Elo within 2, accuracies within 0.002, scores within 0.02.

The paper is Bai et al. 2022, arXiv 2212.08073. Figures 6, 7, 9, 11 and 12 have not been read off.
"""

from __future__ import annotations

from typing import NamedTuple


class Snapshot(NamedTuple):
    """A model during RL, with its Elo scores."""

    sequences: float
    """Prompts seen in RL."""
    helpfulness: float
    """Elo, relative to SL-CAI (EV-10), like ``harmlessness``."""
    harmlessness: float


PRETRAINED = Snapshot(0, -143, -96)
SL_CAI = Snapshot(0, 0, 0)
ELO = {
    "helpful RLHF": (
        PRETRAINED,
        Snapshot(0.38e6, 64, -44),
        Snapshot(0.70e6, 87, -11),
        Snapshot(1.30e6, 119, -64),
        Snapshot(2.49e6, 146, -47),
    ),
    "HH RLHF": (
        PRETRAINED,
        Snapshot(0.47e6, 11, 33),
        Snapshot(0.86e6, 74, 77),
        Snapshot(1.62e6, 99, 29),
        Snapshot(3.10e6, 103, -4),
    ),
    "RL-CAI": (
        SL_CAI,
        Snapshot(0.30e6, 57, 59),
        Snapshot(0.59e6, 104, 97),
        Snapshot(1.14e6, 110, 142),
        Snapshot(2.21e6, 109, 121),
    ),
    "RL-CAI CoT": (
        SL_CAI,
        Snapshot(0.32e6, 43, 52),
        Snapshot(0.61e6, 68, 114),
        Snapshot(1.18e6, 80, 150),
        Snapshot(2.29e6, 85, 190),
    ),
}
"""Data of figures 2 and 8, at 52 billion parameters."""

ELO_SIZES = (6.4e9, 12.6e9, 21.7e9, 51.5e9)
ELO_BY_SIZE = {
    "helpfulness": {
        "helpful RLHF": (-86, -22, 94, 119),
        "HH RLHF": (-203, -79, 9, 74),
        "SL-CAI": (None, None, None, 0),
        "RL-CAI": (None, None, None, 110),
        "RL-CAI CoT": (None, None, None, 80),
    },
    "harmlessness": {
        "helpful RLHF": (-176, -100, -83, -64),
        "HH RLHF": (-58, -24, -7, 77),
        "SL-CAI": (None, None, None, 0),
        "RL-CAI": (None, None, None, 141),
        "RL-CAI CoT": (None, None, None, 150),
    },
}
"""Data of figure 3: snapshots from the middle of each training."""

HHH_SIZES = (0.8e9, 1.6e9, 3.5e9, 6.4e9, 12.6e9, 21.7e9, 51.5e9)
HHH_ACCURACY = {
    "multiple_choice": (0.507, 0.482, 0.488, 0.486, 0.486, 0.550, 0.676),
    "chain_of_thought": (0.506, 0.476, 0.508, 0.502, 0.566, 0.648, 0.724),
    "ensembled": (0.534, 0.468, 0.492, 0.502, 0.575, 0.651, 0.735),
    "preference_model": (0.64, 0.682, 0.711, 0.740, 0.749, 0.747, 0.785),
}
"""Data of figure 4, over 438 questions."""

PM_SCORES = {
    "harmlessness": {
        "52B": (0, 1.79, 2.14, 2.27, 2.30),
        "22B": (-0.40, 1.51, 1.89, 2.05, 2.11),
        "13B": (-0.52, 0.81, 1.25, 1.51, 1.67),
        "6.4B": (-0.71, 0.09, 0.34, 0.50, 0.59),
    },
    "helpfulness": {
        "52B": (0, -0.68, -0.86, -0.94, -0.98),
        "22B": (-0.13, -0.92, -1.14, -1.22, -1.27),
        "13B": (-0.46, -1.09, -1.29, -1.39, -1.44),
        "6.4B": (-0.76, -1.37, -1.51, -1.59, -1.63),
    },
    "both": {
        "52B": (0, 1.32, 1.56, 1.60, 1.62),
        "22B": (-0.20, 1.04, 1.24, 1.35, 1.38),
        "13B": (-0.40, 0.43, 0.71, 0.90, 1.00),
        "6.4B": (-0.61, -0.23, -0.08, 0.03, 0.09),
    },
}
"""Data of figure 5, by preference model and size of the revising model, after 0 to 4 revisions; 52B starts at 0."""

ABSOLUTE_HARMFULNESS = {
    "helpful RLHF": ((2.55, 3.41, 3.53, 3.58, 3.59), (2.43, 3.49, 3.57, 3.55, 3.60)),
    "HH RLHF": ((2.55, 1.68, 0.74, 0.77, 0.72), (2.43, 1.63, 0.69, 0.73, 0.75)),
    "RL-CAI": ((1.76, 1.20, 0.92, 0.79, 0.65), (1.62, 1.18, 0.94, 0.73, 0.63)),
    "RL-CAI CoT": ((1.76, 1.73, 1.60, 1.24, 0.79), (1.62, 1.62, 1.50, 1.17, 0.70)),
}
"""Data of figure 10, at the snapshots of ``ELO``: at temperature 1, and at 0."""
