"""The paper's figures 2 to 12, drawn from your evaluations: a figure is data first, and a drawing of it second."""
