from state_rag.cli import main
from state_rag.metrics.registry import METRICS


def test_all_metrics_are_listed_or_those_asked_for(capsys):
    assert main(["metrics"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{metric.name}: {metric.label}" in shown for metric in METRICS)
    assert main(["metrics", "mae"]) == 0
    shown = capsys.readouterr().out
    assert "mean_g |r - q|" in shown
    assert "rmse" not in shown


def test_a_misspelt_metric_is_refused_with_close_spellings(capsys):
    assert main(["metrics", "pearson_dleta"]) == 1
    assert "no metric 'pearson_dleta'; close spellings: pearson_dleta -> pearson_delta," in capsys.readouterr().err


def test_the_table_can_be_markdown(capsys):
    assert main(["metrics", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| metric | `--metrics` |")
