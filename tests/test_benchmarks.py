"""Programs of benchmarks/ follow the package: what they import is there, and each tells its options."""

import runpy
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports_and_tells_its_options(program, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(program.parent))
    monkeypatch.setattr("sys.argv", [program.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert not ended.value.code
    assert "usage:" in capsys.readouterr().out
