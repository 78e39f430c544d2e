"""Draw the paper's figures 2 to 12 from evaluations. Each figure is first built as data, then drawn."""
