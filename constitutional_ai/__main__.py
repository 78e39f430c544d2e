"""Run the command line as ``python -m constitutional_ai``."""

from constitutional_ai.cli import main

main()
