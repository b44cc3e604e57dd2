"""One file a data set: a `Config` dataclass, `SOURCE` (how to get it) and functions.

`num_classes(config)` and `image_shape(config)`, (C, H, W), are known before anything is loaded;
`load(config, root)` returns the `harness.data.base.Dataset`. A set may also have
`num_domains(config)`, if its splits say the domain of each image; `seeded(config, seed)`, the
settings with what they leave to a trial's raw seed filled in; and `download(root)`.
"""
