"""A trained network as a teacher: it says what that network says, and is looked for only when it is asked."""

import pytest
import torch

from search.deploy import load_network
from search.deploy.teacher import FoundNetwork
from search.errors import CatchmarkError
from tests.search.deploy.test_export import write_folder


def test_a_teacher_says_what_was_trained(tmp_path):
    teacher = FoundNetwork(str(tmp_path / "cells"))
    images = torch.randn(2, 2, 16, 24)
    with pytest.raises(CatchmarkError):
        teacher(images)
    folder = write_folder(tmp_path / "cells")
    assert torch.equal(teacher(images), load_network(folder)(images))
    assert not any(weight.requires_grad for weight in teacher.parameters())
