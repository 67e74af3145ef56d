"""Our model reproduces the authors' own, fixture by fixture."""

import pytest
import torch

from tests import parity

NAMES = parity.fixture_names()

pytestmark = pytest.mark.skipif(not NAMES, reason=f"no parity fixtures in {parity.FOLDER}")


def relative(ours: torch.Tensor, theirs: torch.Tensor, least: float = 1e-12) -> float:
    scale = theirs.abs().max().clamp(min=least)
    return float((ours.detach() - theirs).abs().max() / scale)


@pytest.fixture(scope="module", params=NAMES or ["absent"])
def passed(request):
    """A fixture with our forward and backward pass done."""
    fixture = parity.load(request.param)
    model, seen = fixture.model, {}
    selects = model.settings.mode == "differentiable"
    if selects:
        run = model.selector.select

        def select(*args, **kwargs):
            seen["selection"] = run(*args, **kwargs)
            return seen["selection"]

        model.selector.select = select
    model.observer = lambda observation: seen.update(index=observation.rows)
    batch = fixture.batch()
    model.log = lambda *args, **kwargs: None
    size = model.cell_sentence_len
    prediction = model(batch)
    target = batch["pert_cell_emb"].reshape(-1, size, model.output_dim)
    loss = torch.nanmean(model._compute_distribution_loss(prediction.reshape_as(target), target))
    total = loss
    if selects:
        total = loss + model.settings.gumbel_sparsity_weight * seen["selection"].sparsity
    total.backward()
    return fixture, prediction.detach(), loss.detach(), total.detach(), seen


def test_predictions_and_losses_equal_the_authors(passed):
    fixture, prediction, loss, total, _ = passed
    assert relative(prediction, fixture.tensor("outputs/pred")) < 1e-4
    assert relative(loss, fixture.tensor("outputs/loss")) < 1e-4
    assert relative(total, fixture.tensor("outputs/total")) < 1e-4


def test_every_gradient_equals_the_authors(passed):
    fixture, *_ = passed
    gradients = {name: value.grad for name, value in fixture.model.named_parameters()}
    theirs = fixture.group("grads/")
    assert theirs
    # A key's bias shifts all scores of a query alike, which softmax ignores: its gradient is zero but for rounding.
    rounding = 1e-5 * max(float(grad.abs().max()) for grad in theirs.values())
    off = {name: relative(gradients[name], grad, least=rounding) for name, grad in theirs.items()}
    assert max(off.values()) < 1e-3, off


def test_candidates_equal_the_authors(passed):
    fixture, *_, seen = passed
    if "outputs/topk" not in fixture.arrays:
        assert "index" not in seen
        return
    theirs = fixture.tensor("outputs/topk")[:, 0]
    assert torch.equal(seen["index"].sort(dim=-1).values, theirs.sort(dim=-1).values)
    assert torch.equal(seen["index"], theirs)


def test_scores_choices_and_context_equal_the_authors(passed):
    fixture, *_, seen = passed
    if "selection" not in seen:
        assert "outputs/include" not in fixture.arrays
        return
    selection = seen["selection"]
    assert relative(selection.scores, fixture.tensor("outputs/scores")) < 1e-4
    assert torch.equal(selection.include.round(), fixture.tensor("outputs/include").round())
    assert relative(selection.context, fixture.tensor("outputs/context")) < 1e-4
    assert relative(selection.sparsity, fixture.tensor("outputs/sparsity")) < 1e-4
