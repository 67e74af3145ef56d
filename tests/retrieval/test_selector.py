import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from state_rag.retrieval.selector import CandidateSelector


def literal_triplets(selector, cells, query, candidates, index):
    n_sets, n_cells, _ = cells.shape
    rows = []
    for b in range(n_sets):
        for s in range(n_cells):
            for row in index[b].tolist():
                rows.append(torch.cat([cells[b, s], query[b], candidates[row]]))
    return selector.norm(torch.stack(rows)).view(n_sets, n_cells, index.shape[1], -1)


def literal(selector, cells, query, candidates, index, noise=None, told=None):
    """The method as published: one explicit triplet for each cell and candidate; no dropout."""
    triplets = literal_triplets(selector, cells, query, candidates, index)
    logits = selector.scorer_out(functional.gelu(selector.scorer_in(triplets)))
    if selector.similarity_weight is not None:
        raised = torch.zeros_like(logits)
        for b in range(len(index)):
            for place, row in enumerate(index[b].tolist()):
                cosine = functional.cosine_similarity(query[b], candidates[row], dim=0)
                raised[b, :, place, 0] = -selector.similarity_weight * cosine / 2
                raised[b, :, place, 1] = selector.similarity_weight * cosine / 2
        logits = logits + raised
    scale = {"batch": logits.std(), "running": selector.score_std, "none": torch.ones(())}[selector.score_scale]
    scores = logits / scale
    if selector.inference == "expected":
        include = torch.softmax(scores, -1)[..., 1]
    else:
        soft = torch.softmax((scores + (0 if noise is None else noise)) / selector.temperature, -1)
        hard = functional.one_hot(soft.argmax(-1), 2).to(soft.dtype)
        include = (hard - soft.detach() + soft)[..., 1]
    if told is not None:
        triplets = literal_triplets(selector, cells, query * told[:, None], candidates, index)
    context = (include.unsqueeze(-1) * selector.project(triplets)).sum(2)
    return context, include, scores


def case(n_sets=3, n_cells=5, n_candidates=4, hidden=8, n_rows=9, dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    selector = CandidateSelector(hidden, **options).to(dtype).eval()
    torch.nn.init.normal_(selector.norm.weight)
    torch.nn.init.normal_(selector.norm.bias)
    inputs = [
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((n_sets, n_cells, hidden), (n_sets, hidden), (n_rows, hidden))
    ]
    index = torch.stack([torch.randperm(n_rows)[:n_candidates] for _ in range(n_sets)])
    return selector, inputs, index


def gumbel(*shape, dtype=torch.float64):
    return -torch.empty(*shape, dtype=dtype).exponential_().log()


@pytest.mark.parametrize("score_scale", ["batch", "running", "none"])
@pytest.mark.parametrize("inference", ["expected", "sample", "argmax"])
def test_the_factorised_form_equals_the_published_one_in_value_and_gradient(score_scale, inference):
    selector, inputs, index = case(score_scale=score_scale, inference=inference)
    selector.score_std.fill_(0.3)
    noise = gumbel(3, 5, 4, 2) if inference == "sample" else None
    selection = selector.select(*inputs, index, noise=noise)
    ours = (selection.context, selection.include, selection.scores)
    expected = literal(selector, *inputs, index, noise)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    directions = [torch.randn_like(part) for part in expected]
    wanted = [*inputs, *selector.parameters()]
    gradients = torch.autograd.grad(ours, wanted, directions)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, wanted, directions), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("told", [None, (1, 0, 1)])
@pytest.mark.parametrize("similarity", [False, True])
def test_similarity_in_the_score_and_untold_queries_equal_their_literal_form(similarity, told):
    selector, inputs, index = case(score_scale="batch", similarity=similarity)
    told = None if told is None else torch.tensor(told, dtype=torch.float64)
    selection = selector.select(*inputs, index, told=told)
    ours = (selection.context, selection.include, selection.scores)
    expected = literal(selector, *inputs, index, told=told)
    directions = [torch.randn_like(part) for part in expected]
    wanted = [*inputs, *selector.parameters()]
    gradients = torch.autograd.grad(ours, wanted, directions)
    for mine, theirs in zip(
        (*ours, *gradients), (*expected, *torch.autograd.grad(expected, wanted, directions)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_the_context_of_an_untold_query_depends_on_it_only_through_the_weights():
    selector, (cells, query, candidates), index = case(score_scale="none")
    torch.nn.init.zeros_(selector.scorer_out.weight)  # all weights are equal, whatever the query
    untold = torch.zeros(len(query))
    first, second = (
        selector.select(cells, given, candidates, index, told=untold).context for given in (query, query + 1)
    )
    torch.testing.assert_close(first, second)
    assert not torch.allclose(selector.select(cells, query, candidates, index).context, first)


def test_a_similarity_weight_of_one_includes_the_alike_more_often():
    selector, (cells, query, _), _ = case(score_scale="none", similarity=True)
    torch.nn.init.zeros_(selector.scorer_out.weight)
    torch.nn.init.zeros_(selector.scorer_out.bias)
    candidates, index = torch.cat([query[:1], -query[:1]]), torch.tensor([[0, 1]])
    include = selector.select(cells[:1], query[:1], candidates, index).include
    torch.testing.assert_close(include[0, 0], torch.sigmoid(torch.tensor([1.0, -1.0], dtype=torch.float64)))


def test_parts_of_very_different_level_and_spread_lose_no_precision():
    selector, inputs, index = case(dtype=torch.float32, score_scale="none", hidden=32)
    shifted = [inputs[0] * 30 + 50, inputs[1] * 0.01 - 20, inputs[2] + 7]
    context = selector.select(*shifted, index).context
    exact = selector.double()
    expected, _, _ = literal(exact, *(part.double() for part in shifted), index)
    torch.testing.assert_close(context.double(), expected, rtol=1e-4, atol=1e-4)


def test_finite_differences_confirm_the_gradients():
    selector, inputs, index = case(2, 3, 2, 4, 5, score_scale="batch")
    assert torch.autograd.gradcheck(lambda *given: selector.select(*given, index).context, inputs)


def test_training_uses_hard_weights_with_a_soft_gradient():
    selector, inputs, index = case(dropout=0.0, score_scale="none")
    noise = gumbel(3, 5, 4, 2)
    selection = selector.train().select(*inputs, index, noise=noise)
    assert set(selection.include.unique().tolist()) == {0.0, 1.0}
    selector.inference = "sample"
    context, include, scores = literal(selector, *inputs, index, noise)
    torch.testing.assert_close(selection.context, context)
    probe = torch.randn_like(include)
    (mine,) = torch.autograd.grad((selection.include * probe).sum(), selection.scores)
    (theirs,) = torch.autograd.grad((include * probe).sum(), scores)
    torch.testing.assert_close(mine, theirs)
    assert mine.abs().min() > 0


def test_the_expected_gate_is_how_often_a_draw_includes():
    selector, inputs, index = case(1, 1, 4, inference="sample", score_scale="none")
    wanted = torch.softmax(selector.select(*inputs, index).scores, -1)[..., 1]
    torch.manual_seed(1)
    with torch.no_grad():
        draws = torch.stack([selector.select(*inputs, index).include for _ in range(3000)])
    torch.testing.assert_close(draws.mean(0), wanted, atol=0.04, rtol=0)
    selector.inference = "expected"
    torch.testing.assert_close(selector.select(*inputs, index).include, wanted)


def test_noise_matters_only_where_a_draw_is_made():
    for inference, differs in (("expected", False), ("argmax", False), ("sample", True)):
        selector, inputs, index = case(inference=inference)
        one, two = (selector.select(*inputs, index, noise=gumbel(3, 5, 4, 2) * 5).include for _ in range(2))
        assert torch.equal(one, two) is not differs


@pytest.mark.parametrize("score_scale", ["running", "none"])
def test_in_evaluation_a_set_depends_neither_on_its_batch_mates_nor_on_the_order_of_its_cells(score_scale):
    selector, inputs, index = case(score_scale=score_scale)
    selector.train().select(*inputs, index)
    selector.eval()
    whole = selector.select(*inputs, index).context
    cells, query, candidates = inputs
    alone = selector.select(cells[1:2], query[1:2], candidates, index[1:2]).context
    torch.testing.assert_close(alone, whole[1:2])
    order = torch.randperm(5)
    torch.testing.assert_close(selector.select(cells[:, order], query, candidates, index).context, whole[:, order])


def test_under_batch_scale_a_set_does_depend_on_its_batch_mates():
    selector, inputs, index = case(score_scale="batch")
    cells, query, candidates = inputs
    whole = selector.select(*inputs, index).scores
    alone = selector.select(cells[1:2], query[1:2], candidates, index[1:2]).scores
    assert not torch.allclose(alone, whole[1:2])


def test_the_order_of_candidates_is_that_of_their_weights_and_does_not_change_the_context():
    selector, inputs, index = case()
    whole, turned = selector.select(*inputs, index), selector.select(*inputs, index.flip(1))
    torch.testing.assert_close(whole.context, turned.context)
    torch.testing.assert_close(whole.include, turned.include.flip(-1))


def test_two_evaluations_agree_exactly_and_two_seeded_training_steps_too():
    selector, inputs, index = case(dtype=torch.float32, score_scale="batch")
    assert torch.equal(selector.select(*inputs, index).context, selector.select(*inputs, index).context)
    selector.train()
    contexts = []
    for _ in range(2):
        torch.manual_seed(7)
        contexts.append(selector.select(*inputs, index).context)
    assert torch.equal(*contexts)


def test_the_running_scale_starts_at_the_first_batch_then_moves_slowly_and_is_saved():
    selector, inputs, index = case(dropout=0.0, momentum=0.25)
    scores = selector.select(*inputs, index).scores
    torch.testing.assert_close(selector.score_std, torch.ones_like(selector.score_std))
    first = scores.std().item()
    selector.train().select(*inputs, index)
    assert selector.score_std.item() == pytest.approx(first)
    louder = [part.detach() for part in inputs]
    with torch.no_grad():
        selector.scorer_out.weight *= 2
        selector.scorer_out.bias *= 2
    trained = selector.select(*louder, index)
    assert selector.score_std.item() == pytest.approx(0.75 * first + 0.25 * 2 * first)
    assert trained.scores.std().item() == pytest.approx(1)
    selector.eval().select(*louder, index)
    assert selector.score_batches == 2
    restored = CandidateSelector(8)
    restored.load_state_dict(selector.state_dict())
    assert restored.score_std == selector.score_std.float()
    assert restored.score_batches == 2


def test_a_batch_that_is_not_finite_leaves_the_running_scale_alone():
    selector, inputs, index = case()
    selector.train().select(*inputs, index)
    before = selector.score_std.item()
    selector.select(inputs[0] * float("nan"), *inputs[1:], index)
    assert selector.score_std.item() == before
    assert selector.score_batches == 1


def test_without_sets_everything_is_empty_and_parameters_still_join_the_graph():
    selector, _, _ = case(score_scale="running")
    empty = torch.zeros(0, dtype=torch.float64)
    selection = selector.train().select(
        empty.view(0, 5, 8), empty.view(0, 8), empty.view(0, 8), torch.zeros(0, 4, dtype=torch.long)
    )
    assert selection.context.shape == (0, 5, 8)
    assert selection.include.shape == (0, 5, 4)
    assert selection.scores.shape == (0, 5, 4, 2)
    assert selection.sparsity == 0
    assert selection.active_ratio == 0
    assert selector.score_batches == 0
    total = selector.zero_weight_terms() + selection.sparsity + selection.context.sum()
    total.backward()
    assert total == 0
    assert all((parameter.grad == 0).all() for parameter in selector.parameters())


def test_every_parameter_and_input_gets_a_gradient():
    selector, inputs, index = case()
    selection = selector.train().select(*inputs, index)
    (selection.context.square().mean() + 0.1 * selection.sparsity).backward()
    for tensor in [*inputs, *selector.parameters()]:
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_sparsity_is_the_mean_weight_and_its_gradient_spares_what_was_left_out():
    selector, inputs, index = case()
    selection = selector.train().select(*inputs, index)
    assert selection.sparsity.item() == pytest.approx(selection.include.mean().item())
    assert selection.active_ratio.item() == pytest.approx(selection.include.mean().item())
    (gradient,) = torch.autograd.grad(selection.sparsity, selection.include)
    assert torch.equal(gradient, selection.include.detach() / selection.include.numel())


@pytest.mark.parametrize("score_scale", ["batch", "running"])
def test_one_pair_or_equal_logits_do_not_divide_by_zero(score_scale):
    selector, inputs, index = case(score_scale=score_scale)
    with torch.no_grad():
        selector.scorer_out.weight.zero_()
        selector.scorer_out.bias.zero_()
    selection = selector.train().select(*inputs, index)
    selection.context.sum().backward()
    assert selection.scores.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in selector.parameters())


def test_under_bf16_autocast_results_stay_in_float32():
    selector, inputs, index = case(dtype=torch.float32)
    plain = selector.select(*inputs, index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = selector.select(*inputs, index)
        mixed.context.sum().backward()
    assert mixed.context.dtype == torch.float32
    torch.testing.assert_close(mixed.context, plain.context)
    low = selector.select(*(part.bfloat16() for part in inputs), index)
    assert low.context.dtype == torch.float32
    torch.testing.assert_close(low.context, plain.context, rtol=0.1, atol=0.1)


def test_a_module_wholly_in_bf16_still_computes_in_float32():
    selector, inputs, index = case(dtype=torch.float32)
    low = selector.bfloat16().select(*(part.bfloat16() for part in inputs), index)
    assert low.context.dtype == torch.float32
    low.context.sum().backward()
    assert selector.project.weight.grad.dtype == torch.bfloat16


def test_nothing_of_the_hidden_layers_size_is_saved_for_backward():
    selector, inputs, index = case(4, 32, 32, 64, 40, dtype=torch.float32)
    hidden_layer = 4 * 32 * 32 * 64
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        selector.train().select(*inputs, index)
    assert max(sizes) < hidden_layer / 4
    assert hidden_layer not in sizes


def test_the_flop_counter_sees_far_fewer_products_than_the_published_form_needs():
    n_sets, n_cells, n_candidates, hidden, n_rows = 4, 8, 6, 16, 20
    selector, inputs, index = case(n_sets, n_cells, n_candidates, hidden, n_rows, dtype=torch.float32)
    with FlopCounterMode(display=False) as ours, torch.no_grad():
        selector.select(*inputs, index)
    pairs = n_sets * n_cells * n_candidates
    products = 2 * 2 * (n_sets * n_cells + n_sets + n_rows) * hidden * (hidden + 1)  # a column for means
    once = 2 * pairs * hidden * 2 + 2 * pairs * hidden + 2 * 2 * 3 * hidden**2
    assert products < ours.get_total_flops() <= products + once
    assert ours.get_total_flops() < 0.3 * (2 * pairs * 3 * hidden * hidden * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"score_scale": "none "}, "score_scale"), ({"inference": "mean"}, "inference"), ({"dropout": 1.0}, "dropout")],
)
def test_unknown_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CandidateSelector(8, **options)


def test_drawn_noise_is_standard_gumbel_in_difference():
    selector, inputs, index = case(64, 8, 8, score_scale="none", inference="sample")
    with torch.no_grad():
        selector.scorer_out.weight.zero_()
        selector.scorer_out.bias.copy_(torch.tensor([0.0, 1.0]))
        torch.manual_seed(0)
        share = selector.select(*inputs, index).include.mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02)


@pytest.mark.parametrize("score_scale", ["batch", "running"])
def test_a_candidate_that_is_switched_off_leaves_the_others_as_they_are(score_scale):
    selector, inputs, index = case(score_scale=score_scale)
    keep = torch.ones(3, 4)
    keep[0, 1] = 0
    keep[2] = 0
    selection = selector.select(*inputs, index, keep=keep)
    whole = selector.select(*inputs, index)
    torch.testing.assert_close(selection.include, whole.include * keep[:, None, :].double())
    assert torch.equal(selection.scores, whole.scores)
    for b in range(3):
        for s in range(5):
            expected = torch.zeros(8, dtype=torch.float64)
            for k, row in enumerate(index[b].tolist()):
                if keep[b, k]:
                    triplet = torch.cat([inputs[0][b, s], inputs[1][b], inputs[2][row]])
                    expected = expected + whole.include[b, s, k] * selector.project(selector.norm(triplet))
            torch.testing.assert_close(selection.context[b, s], expected)
