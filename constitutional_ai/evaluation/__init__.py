"""Evaluate models as the paper does (``cai evaluate``).

A *candidate* is a model under evaluation. Its *role* is start, sl-cai or rl-cai. A *suite* is one evaluation: the
candidates, and everything that measures them. A *part* is a group of measurements, such as the matches. It has a module
with a function ``measure(suite)`` that returns metrics, and a folder with every answer behind them.
"""
