"""optexp report."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_directories import write_run

from optexp.commands.report import main
from optexp.errors import BadInput


def test_the_page_is_written_into_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/a"))
    assert main(["runs/a"]) == 0
    assert capsys.readouterr().out == "report: runs/a/report.html\n"
    assert "<h1>a</h1>" in Path("runs/a/report.html").read_text()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="DIR"):
        main([])
    with pytest.raises(BadInput, match="no such folder"):
        main([str(tmp_path / "nope")])
