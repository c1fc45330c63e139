"""``segexp train`` under Hydra's own launchers, for the comparison in ``tests.benchmarks.sweeps``."""

from typing import Any

import hydra

from segexp.commands.train import train_one
from segexp.config import conf_dir, register_resolvers

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def job(config: Any) -> None:
    """Train one combination in whatever process the launcher has made."""
    train_one(config, ["benchmark"], ("tests.",))


if __name__ == "__main__":
    job()
