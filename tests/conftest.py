"""What all tests share: the long repetitions of the faults run only when they are asked for."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip ``long_faults`` unless SEGEXP_LONG_FAULTS=1."""
    if os.environ.get("SEGEXP_LONG_FAULTS") == "1":
        return
    skip = pytest.mark.skip(reason="long: SEGEXP_LONG_FAULTS=1 runs it")
    for item in items:
        if "long_faults" in item.keywords:
            item.add_marker(skip)
