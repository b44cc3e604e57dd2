from harness.data.augment import Plain, NoConfig as Config

build = Plain
