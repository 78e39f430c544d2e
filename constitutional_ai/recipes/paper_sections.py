"""Name the sections of the paper that say what a key of a recipe does.

They stand by the ids of docs/paper.md that the docstrings of the keys cite.
"""

from __future__ import annotations

EARLIER = "Bai et al. 2022a, "
"""The earlier paper, whose recipe the paper follows (arXiv 2204.05862)."""
SECTIONS_OF = {
    "SL-2": "section 3.2",
    "SL-3": "section 3.2",
    "SL-4": "section 3.2",
    "SL-5": "section 3",
    "SL-8": "section 3.2",
    "SL-10": "section 3.2",
    "SL-11": "section 3.1 and appendix E.1",
    "SL-12": "not stated",
    "SL-13": f"not stated; {EARLIER}appendix B.1",
    "SL-14": "sections 3.1 and 3.5",
    "SL-15": "section 3.1",
    "SL-16": "sections 3.1 and 3.2",
    "SL-17": "section 3.4",
    "SL-19": "section 3.2",
    "FB-2": "section 4.2",
    "FB-3": "section 4.1",
    "FB-6": "sections 4.1 and 4.3",
    "FB-7": "section 4.1",
    "FB-8": "not stated",
    "FB-12": "appendix E.2",
    "FB-13": "sections 4.1 and 4.3",
    "FB-15": "sections 2 and 4.3",
    "PM-1": "section 4.2",
    "PM-3": f"{EARLIER}section 3.1 and appendix A.2",
    "PM-5": f"{EARLIER}section 2.2",
    "PM-6": f"{EARLIER}appendix B.2",
    "RL-1": "section 4.2",
    "RL-2": f"{EARLIER}appendices B.1 and B.3",
    "RL-5": "section 4.2",
    "RL-6": "figures 8 and 10",
    "RL-7": "section 4.3",
}
