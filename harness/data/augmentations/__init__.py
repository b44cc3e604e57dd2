"""One file an augmentation: a `Config` dataclass and `build(config, traits, image_shape)`."""
