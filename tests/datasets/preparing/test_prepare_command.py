from tests.datasets.calls import call
from tests.datasets.helpers import make_adata


def test_prepare_says_what_it_changed(tmp_path, capsys):
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    call("data", "prepare", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad")
    output = capsys.readouterr().out
    assert "- stored X as float32 (was float64)" in output
    assert f"prepared  {tmp_path / 'out.h5ad'}" in output
