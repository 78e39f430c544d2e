"""Evaluates models as the paper does (``cai evaluate``).

A *candidate* is a model under evaluation. Its *role* says what it is in its run: start, sl-cai or rl-cai.
A *suite* is one evaluation: the candidates, and all that they are measured with.
A *part* is a group of measurements, such as the matches: a module with a function ``measure(suite)`` that returns
metrics, and a folder of that name which keeps every answer behind them.
"""
