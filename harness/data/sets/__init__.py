"""One file a data set: a `Config` dataclass, `SOURCE` (how to get it) and functions.

`num_classes(config)` and `image_shape(config)`, (C, H, W), are known before anything is loaded. A
set may also have `num_domains(config)`, if its splits say the domain of each image; `seeded(config,
seed)`, the settings with what they leave to a trial's raw seed filled in; and `download(root)`.

A set that is on disk says where and what: `places(root)`, the folders it may be in, in order;
`missing(folder, config)`, what such a folder lacks; `scan(folder, config)`, its
`harness.data.source.Contents`; `traits(config)`; and `official(config)`, what was published. It is
then decoded once (`harness.data.prepared`). One whose `Contents` have no training split says so by
`EVALUATION_ONLY = True`. If pictures may be left out, its `Config` has `skip_corrupt`.

A set that comes with the project has `load(config, root)` instead, which returns the
`harness.data.base.Dataset`.
"""
