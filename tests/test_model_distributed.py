"""What distributed training sends around."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests import tiny_model as tiny


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_the_knowledge_is_not_sent_to_all_processes_before_every_step(mode, process_group):
    model = tiny.build(mode)
    tiny.logged(model)
    constant = [value for name, value in model.named_buffers() if name.startswith(("knowledge.", "neighbours."))]
    assert constant
    assert not set(model.state_dict()) & set(model._ddp_params_and_buffers_to_ignore)
    sent = DistributedDataParallel(model).modules_buffers
    assert not {id(value) for value in constant} & {id(value) for value in sent}
    if mode == "differentiable":
        assert id(model.selector.score_std) in {id(value) for value in sent}
