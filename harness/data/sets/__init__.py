"""One file a data set: a `Config` dataclass, `num_classes(config)` and `load(config, root)`."""
