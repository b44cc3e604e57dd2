"""One file an evaluator: a `Config` dataclass and `build`, the class; see `harness.measure`."""
