"""The stages of a run. Each stage reads the files of earlier ones; no stage calls another."""
