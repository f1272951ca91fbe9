"""A node for each test module, in a fresh folder."""

import pytest
from node import Node


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node")).start()
    yield node
    node.stop()
