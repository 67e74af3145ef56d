import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from state_rag.upstream.training.sharded_sets import ShardedSets, share

sizes = st.integers(1, 5)


@given(st.integers(1, 40), sizes, sizes)
def test_each_global_batch_is_that_of_one_process(n_sets, batch_size, processes):
    sets = list(range(n_sets))
    parts = [share(sets, batch_size, rank, processes) for rank in range(processes)]
    assert len({len(part) for part in parts}) == 1
    together = []
    for start in range(0, len(parts[0]), batch_size):
        for part in parts:
            together += part[start : start + batch_size]
    assert together[:n_sets] == sets
    assert len(together) - n_sets < processes  # what one process has more than another, seen twice


def test_there_is_nothing_to_share_of_nothing():
    assert share([], 2, 0, 2) == []


def sampler(rank, processes=2, n_sets=9):
    made = ShardedSets.__new__(ShardedSets)
    vars(made).update(
        sentences=[[number] * 4 for number in range(n_sets)],
        batch_size=2,
        cell_sentence_len=4,
        test=False,
        drop_last=False,
        use_consecutive_loading=False,
        seed=0,
        epoch=0,
        distributed=processes > 1,
        rank=rank,
        num_replicas=processes,
    )
    made.batches = made._create_batches()
    return made


def seen(one):
    """The sets that a sampler's batches are made of, batch by batch."""
    return [sorted(set(batch)) for batch in one]


def test_processes_see_all_sets_in_every_epoch_in_another_order():
    epochs = []
    samplers = [sampler(rank) for rank in range(2)]
    for _ in range(3):
        parts = [seen(one) for one in samplers]
        assert len(parts[0]) == len(parts[1]) == len(samplers[0])
        assert {number for part in parts for batch in part for number in batch} == set(range(9))
        epochs.append(parts)
    assert epochs[0] != epochs[1] != epochs[2]


def test_drawing_for_an_epoch_leaves_the_random_numbers_of_the_process_alone():
    one = sampler(0)
    np.random.seed(3)
    expected = np.random.random(2)
    np.random.seed(3)
    list(one)
    assert np.array_equal(np.random.random(2), expected)
