"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.heads import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Folder]:
    return lambda layout="bulk", name="data": Folder(tmp_path / name, layout)
