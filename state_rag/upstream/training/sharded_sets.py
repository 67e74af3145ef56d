"""Cell sets of a training by several processes: each has its part of every global batch.

cell-load gives each process one part of the sets for good, of which no two need have the same number, and draws the
sets anew in each process from random numbers that have parted by then: sets overlap, and others are never seen.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from cell_load.data_modules.samplers import PerturbationBatchSampler

_MADE = 0


class ShardedSets(PerturbationBatchSampler):
    """cell-load's sampler, of which all processes see the same sets in the same order.

    Of a global batch, W * b sets for W processes with batches of b, each takes b; the last one is shared out evenly,
    with some of the first sets again where W does not divide it. Over processes together it is what one process with
    batches of W * b would see. Every epoch has another order. Of test sets, and with one process, nothing is changed.
    """

    def __init__(self, *args, **kwargs) -> None:
        global _MADE
        _MADE += 1
        # alike in all processes: they make their samplers in the same order
        with _random_numbers(int(os.environ.get("PL_GLOBAL_SEED", 0)) + _MADE):
            super().__init__(*args, **kwargs)

    def _get_rank_sentences(self) -> list[list[int]]:
        order = np.random.RandomState(self.seed + self.epoch).permutation(len(self.sentences))
        sets = [self.sentences[place] for place in order]
        return share(sets, self.batch_size, self.rank, self.num_replicas)

    def __iter__(self) -> Iterator[list[int]]:
        yield from super().__iter__()
        if self.distributed:
            with _random_numbers(self.seed + self.epoch):
                self.set_epoch(self.epoch + 1)


def share(sets: list, batch_size: int, rank: int, processes: int) -> list:
    """Return the sets of one process, `batch_size` of each global batch; all processes get equally many.

    Examples
    --------
    >>> [share(list("abcdefg"), 2, rank, 2) for rank in (0, 1)]
    [['a', 'b', 'e', 'f'], ['c', 'd', 'g', 'a']]
    """
    lacking = -len(sets) % processes
    whole = [*sets, *(sets[place % len(sets)] for place in range(lacking))] if sets else []
    mine = []
    for start in range(0, len(whole), batch_size * processes):
        batch = whole[start : start + batch_size * processes]
        own = len(batch) // processes
        mine += batch[rank * own : (rank + 1) * own]
    return mine


@contextmanager
def _random_numbers(seed: int) -> Iterator[None]:
    """Have NumPy draw from a seed for a while, and go on as before afterwards."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
