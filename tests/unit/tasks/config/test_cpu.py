"""Workers are as many as the cores a pod may use, not as the node has."""

from pathlib import Path

import pytest

from tasks.config.cpu import cores


@pytest.mark.parametrize(("limit", "expected"), [("20000 100000", 1), ("100001 100000", 2), ("max 100000", None)])
def test_control_groups_v2(tmp_path: Path, limit: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cores(tmp_path) == (expected or cores(tmp_path / "none"))


@pytest.mark.parametrize(("quota", "expected"), [("20000", 1), ("-1", None)])
def test_control_groups_v1(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == (expected or cores(tmp_path / "none"))
