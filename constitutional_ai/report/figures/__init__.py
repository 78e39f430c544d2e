"""Draw the paper's figures 2 to 12 from evaluations: each is data first, and a drawing of the data second."""
