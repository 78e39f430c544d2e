"""``python -m cai.cli``."""

from cai.cli import main

main()
