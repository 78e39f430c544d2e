"""The stages of a run. They meet only on disk: each reads what earlier ones made, and no stage calls another."""
