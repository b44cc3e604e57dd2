"""Methods that learn from labels. One file a method: a `Config` dataclass and `build`."""
