"""One private copy for all drills of a test process; a drill that leaves it harmed has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.private_copy import Copy


@pytest.fixture(scope="package")
def laisee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    with Copy.running(tmp_path_factory.mktemp("copy")) as copy:
        yield copy
