"""Networks. One file each: a `Config` dataclass and `build(config, image_shape)`."""
