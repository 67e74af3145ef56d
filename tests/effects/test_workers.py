import sys

import pytest

from state_rag.effects.workers import Workers
from state_rag.errors import StateRagError


def doubled(shared, task, told=None):
    if task == shared:
        raise StateRagError(f"{task} is broken")
    return 2 * task


def test_results_come_in_the_order_of_the_tasks_and_an_error_ends_the_work():
    assert list(Workers().run(doubled, -1, list(range(20)), lambda *_: None)) == [2 * task for task in range(20)]
    found = []
    with pytest.raises(StateRagError, match="3 is broken"):
        found.extend(Workers().run(doubled, 3, list(range(20)), lambda *_: None))


def test_few_tasks_are_begun_before_their_turn(monkeypatch):
    monkeypatch.setattr("state_rag.effects.workers._THREADS", 2)
    begun = []

    def noted(shared, task, told):
        begun.append(task)
        return task

    results = Workers().run(noted, None, list(range(50)), lambda *_: None)
    assert next(results) == 0
    assert len(begun) <= 5
    results.close()


def test_two_answers_to_one_question_and_no_workers_at_all_are_refused():
    with pytest.raises(StateRagError, match="one of the two"):
        Workers("tcp://host:8786", 2)
    with pytest.raises(StateRagError, match="--workers 0"):
        Workers(count=0)


def test_dask_that_is_not_installed_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StateRagError, match=r"--workers 2 needs Dask.*state-rag\[dask\]"):
        list(Workers(count=2).run(doubled, -1, [1, 2], lambda *_: None))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    client = distributed.Client
    monkeypatch.setattr("distributed.Client", lambda address, timeout: client(address, timeout="200ms"))
    with pytest.raises(StateRagError, match=r"tcp://127.0.0.1:9.*no Dask scheduler answers"):
        list(Workers("tcp://127.0.0.1:9").run(doubled, -1, [1, 2], lambda *_: None))
