"""Self-supervised objectives. One file each: a `Config` dataclass and `build(config, backbone)`."""
