"""`cascade.imaging.memory`: limits of both versions of cgroups, and photos that do not fit."""

from __future__ import annotations

import pytest

from cascade.errors import ImageError
from cascade.imaging import memory


def test_the_least_limit_of_a_group_and_those_above_it(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    assert memory.cgroup_limit(groups, tmp_path) is None
    (tmp_path / "a" / "memory.max").write_text("268435456\n")
    assert memory.cgroup_limit(groups, tmp_path) == 268435456


def test_version_1(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    (tmp_path / "memory" / "x").mkdir(parents=True)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.cgroup_limit(groups, tmp_path) is None
    (tmp_path / "memory" / "x" / "memory.limit_in_bytes").write_text("1000\n")
    assert memory.cgroup_limit(groups, tmp_path) == 1000


def test_no_groups(tmp_path):
    assert memory.cgroup_limit(tmp_path / "none", tmp_path) is None


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 200 << 20)
    with memory.reserved(150 << 20):
        pass
    refused = pytest.raises(ImageError, match="would take 180 MB to decode and 168 MB are left")
    with refused, memory.reserved(180 << 20):
        pass
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    with memory.reserved(1 << 50):
        pass
