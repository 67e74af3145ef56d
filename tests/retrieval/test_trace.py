import torch

from state_rag.retrieval.trace import RetrievalTrace


def make_trace():
    weights = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[1.0, 1.0], [0.25, 0.51]]], requires_grad=True)
    rows, similarity = torch.tensor([[2, 0], [1, 2]]), torch.tensor([[0.9, 0.1], [0.8, 0.2]], dtype=torch.bfloat16)
    return RetrievalTrace.from_tensors(["X", "Y"], ("A", "B", "C"), rows, similarity, weights)


def test_the_published_strings_are_written_for_each_cell():
    assert list(make_trace().cells()) == [
        ("X", "C(w=1.00)|A(w=0.00)", "C", 1),
        ("X", "C(w=0.00)|A(w=0.50)", "none", 0),
        ("Y", "B(w=1.00)|C(w=1.00)", "B|C", 2),
        ("Y", "B(w=0.25)|C(w=0.51)", "C", 1),
    ]


def test_selected_means_a_weight_above_one_half():
    trace = make_trace()
    assert trace.selected.tolist() == [[[True, False], [False, False]], [[True, True], [False, True]]]
    assert trace.n_retrieved == 2
    assert trace.candidates == [["C", "A"], ["B", "C"]]


def test_weights_are_shown_as_python_rounds_them():
    weights = torch.cat([torch.linspace(0, 1, 401), torch.rand(200), torch.tensor([0.005, 0.125, 0.875, 1e-9])])
    width = len(weights)
    names = [f"P{number}" for number in range(width)]
    rows = torch.arange(width)[None]
    trace = RetrievalTrace.from_tensors(["X"], names, rows, torch.zeros(1, width), weights[None, None])
    [(_, shown, _, _)] = trace.cells()
    assert shown.split("|") == [f"{name}(w={weight:.2f})" for name, weight in zip(names, weights.tolist(), strict=True)]


def test_a_trace_holds_arrays_not_tensors():
    trace = make_trace()
    assert trace.rows.dtype == "int64"
    assert trace.weights.shape == (2, 2, 2)
    assert trace.similarity.dtype == "float32"


def test_a_set_by_itself_keeps_the_sources_that_proposed_its_candidates():
    by = torch.tensor([[[True, False], [True, True]], [[False, True], [False, False]]])
    rows, weights = torch.tensor([[1, 2], [0, 2]]), torch.rand(2, 3, 2)
    trace = RetrievalTrace.from_tensors(
        ["A", "B"], ["A", "B", "C"], rows, torch.rand(2, 2), weights, ("text", "go"), by
    )
    assert trace.candidate_sources == [["text", "text+go"], ["go", "none"]]
    first, control, second = trace.of_sets(["A", "control", "B"])
    assert first.candidate_sources == [["text", "text+go"]]
    assert control.candidate_sources == []
    assert second.candidate_sources == [["go", "none"]]
