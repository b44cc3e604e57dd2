"""Starts a Ray of its own on this machine, prints its address, and ends it when stdin closes."""

import sys

from harness import cluster


def main() -> None:
    cluster.prepare()
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    sys.stdout.write(ray.get_runtime_context().gcs_address + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
