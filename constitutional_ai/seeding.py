"""Randomness fixed by *what* is drawn, never by when.

Every draw is seeded by a hash of its name (the run's seed, the record's id, the round …). The order of records,
their concurrency, a resume and the number of machines change nothing.
"""

from __future__ import annotations

import hashlib
import random


def seed_of(*what: object) -> int:
    """Return the 63-bit seed that ``what`` names.

    >>> seed_of(0, "3f2a9c.0", "round", 1) == seed_of(0, "3f2a9c.0", "round", 1)
    True
    """
    name = "\x1f".join(map(str, what)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def rng(*what: object) -> random.Random:
    """Return the random generator of the draw that ``what`` names."""
    return random.Random(seed_of(*what))
