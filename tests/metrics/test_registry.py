import pytest

from state_rag.errors import StateRagError
from state_rag.metrics import registry


def test_names_and_labels_are_unique():
    assert len({metric.name for metric in registry.METRICS}) == len(registry.METRICS)
    assert len({metric.label for metric in registry.METRICS}) == len(registry.METRICS)


def test_the_papers_table_has_its_nine_metrics():
    names = [metric.label for metric in registry.METRICS if metric.in_paper]
    assert names == ["Pearson (DEG)", "Spearman (DEG)", "MSE", "RMSE", "MAE", "MSE PCA-50", "W1", "W2", "Energy"]


def test_an_unknown_metric_is_refused_with_the_known_ones_listed():
    with pytest.raises(StateRagError, match="no metric 'mze'.*pearson_deg"):
        registry.choose(["mse", "mze"])
