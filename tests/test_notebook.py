"""docs/notebook.ipynb runs from its first cell to its last and shows tables, a figure and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_notebook_runs(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    notebook: Any = nbformat.read(repository / "docs" / "notebook.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    # One trial at a time: a second process of each stage would load torch and transformers for a few seconds of training.
    name, one = '"name": "notebook",', '"name": "notebook", "resources": {"dashboard": False, "max_concurrent": 1},'
    assert sum(name in cell.source for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace(name, one)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in data for data in shown) >= 3 and any("image/png" in data for data in shown)
    printed = "".join(output.get("text", "") for output in notebook.cells[-2].outputs)
    assert "jepa/llama3 against baseline/llama3" in printed
