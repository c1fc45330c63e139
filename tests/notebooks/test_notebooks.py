"""Every notebook runs from top to bottom at smoke scale."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("SEGEXP_SCALE", "smoke")
    monkeypatch.setenv("SEGEXP_OUTPUTS", str(tmp_path))
    content = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in content.cells), "outputs are made, not stored"
    NotebookClient(content, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert list(tmp_path.glob("tables/*/*.html"))
    assert any(output.get("data", {}).get("image/png") for cell in content.cells for output in cell.get("outputs", []))
