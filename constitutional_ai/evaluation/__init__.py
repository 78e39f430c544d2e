"""``cai evaluate``: the paper's evaluations, for any models. A part of it is a file; ``evaluate.py`` is their order."""
