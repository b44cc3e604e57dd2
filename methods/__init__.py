"""Continual learners. Depends on torch; never on `harness` or `analysis`."""
