"""Turns stored results into tables, figures and a report. Imports `harness.schema` only."""
