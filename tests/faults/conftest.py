from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.nursery import Nursery, nursery
from tests.faults.site import Site


@pytest.fixture(scope="session")
def children() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


@pytest.fixture
def site(children: Nursery, tmp_path: Path) -> Site:
    return Site(children, tmp_path)
