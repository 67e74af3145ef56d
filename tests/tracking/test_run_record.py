import pytest

from state_rag.tracking.run_record import FILE, PATH_FILE, RunRecord


def test_a_record_survives_a_trip_through_its_file(tmp_path):
    record = RunRecord("team", "state", "abc", offline=True, step=7, tags=["topk=8"], config={"a": {"b": [1, None]}})
    record.save(tmp_path)
    assert RunRecord.read(tmp_path) == record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team/state/abc\n", ("team", "state", "abc")),
        ("state/abc", (None, "state", "abc")),
        ("abc", (None, None, "abc")),
    ],
)
def test_a_run_that_only_state_described_is_found_by_its_path(text, expected, tmp_path):
    (tmp_path / PATH_FILE).write_text(text)
    record = RunRecord.read(tmp_path)
    assert record is not None
    assert (record.entity, record.project, record.run_id) == expected


def test_a_run_without_wandb_has_no_record(tmp_path):
    assert RunRecord.read(tmp_path) is None


@pytest.mark.parametrize(("name", "text"), [(FILE, "{"), (FILE, '{"unheard": 1}'), (PATH_FILE, "")])
def test_a_damaged_record_is_named(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        RunRecord.read(tmp_path)
