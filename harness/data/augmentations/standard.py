from harness.data.augment import Standard, NoConfig as Config

build = Standard
