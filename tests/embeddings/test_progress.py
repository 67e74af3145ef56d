from state_rag.embeddings.progress import byte_progress


def test_bytes_pass_through_unchanged_and_nothing_is_shown_off_a_terminal(tmp_path, capsys):
    (tmp_path / "a").write_bytes(b"abcdef")
    with open(tmp_path / "a", "rb") as file, byte_progress(file, "reading", show=True) as counted:
        assert counted.read(4) + counted.read() == b"abcdef"
    assert capsys.readouterr() == ("", "")
