"""What all tests of several processes share."""

import pytest

from tests.search.distributed.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Forks the processes of every test."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()
