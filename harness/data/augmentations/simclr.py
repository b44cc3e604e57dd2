from harness.data.augment import SimCLR, SimCLRConfig as Config

build = SimCLR
