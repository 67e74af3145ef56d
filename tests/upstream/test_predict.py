from argparse import Namespace

import pytest
import torch

from state_rag.upstream.predict import run


@pytest.mark.slow
def test_pytorch_has_the_threads_of_before_where_state_s_evaluation_took_all_cores(run_copy):
    args = Namespace(
        output_dir=str(run_copy), checkpoint="final.ckpt", toml=None, genept_path=None, sources=[], max_batches=None
    )
    vars(args).update(
        dict.fromkeys(("eval_genept_pert", "eval_train_data", "count_flops", "test_time_finetune"), False)
    )
    vars(args).update(predict_only=True, skip_adatas=True, pseudobulk=False, shared_only=False, no_gge=False)
    seen = []

    def state_s_own(args):
        seen.append(torch.get_num_threads())
        torch.set_num_threads(seen[0] + 2)

    run(state_s_own, args)

    assert torch.get_num_threads() == seen[0]
