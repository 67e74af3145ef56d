from state_rag.evaluation.report_page import Report


def test_pictures_of_runs_whose_names_differ_in_punctuation_or_case_have_files_of_their_own(tmp_path):
    report = Report("t", tmp_path)
    names = [report.file_name("cells", run) for run in ("a-b", "a_b", "A_B", "a b")]
    assert names[0] == "cells_a_b"
    assert len({name.lower() for name in names}) == 4
    assert report.file_name("cells", "a_b") == names[1]


def test_a_long_name_still_makes_a_file_name(tmp_path):
    assert len(Report("t", tmp_path).file_name("cells", "x" * 400)) < 200
