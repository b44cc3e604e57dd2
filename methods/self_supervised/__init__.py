"""Methods that never see a label. One file a method: a `Config` dataclass and `build`."""
