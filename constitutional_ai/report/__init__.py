"""Shows a run to people: a page, and one prompt's life. It only reads: deleting it would touch nothing else."""
