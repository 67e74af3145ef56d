import contextlib

import numpy as np
import torch

from state_rag.metrics.clouds import one_thread, pad


def test_clouds_are_padded_with_zeros_and_their_sizes_kept():
    stacked, sizes = pad([np.ones((2, 3)), np.full((4, 3), 2.0)], torch.device("cpu"))
    assert sizes.tolist() == [2, 4]
    assert stacked.shape == (2, 4, 3)
    assert stacked[0, 2:].abs().sum() == 0
    assert (stacked[1] == 2).all()


def test_the_number_of_threads_is_restored_even_after_an_error():
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
