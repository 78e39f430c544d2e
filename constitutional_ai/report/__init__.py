"""Show a run to people: a page, figures, model cards, one prompt's records, and exports. Only ``cli`` imports it."""
