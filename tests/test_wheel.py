"""What pip installs: the wheel alone, outside a checkout, has agents and data."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

from tests import ROOT

_USE = """
import json, sys
import nhzoo
from nhzoo.data.traces import open_traces
from nhzoo.leaderboard.site.builder import play_page
from nhzoo.policy import checkpoint
# It would compile everything anew at this place; other tests run it, on the same code and weights.
checkpoint._self_test = lambda *given: None
names = [agent.name for agent in nhzoo.list_agents() if agent.path]
print(json.dumps({
    "file": nhzoo.__file__,
    "agents": names,
    "loaded": [nhzoo.load(name).name for name in names],
    "games": len(open_traces("autoascend-monk-v1").traces),
    "page": play_page(),  # its templates, style sheet and scripts are carried
}))
"""


@pytest.mark.slow
def test_the_wheel_carries_agents_and_data(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", tmp_path, ROOT),
        ],
        check=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("nhzoo-*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    done = subprocess.run(
        [sys.executable, "-c", _USE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.fspath(installed), "NHZOO_AGENTS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    import json

    found = json.loads(done.stdout)
    assert found["file"].startswith(os.fspath(installed))
    entries = sorted(path.parent.name for path in (ROOT / "agents").glob("*/config.json"))
    assert sorted(found["agents"]) == sorted(found["loaded"]) == entries
    assert found["games"] == 171
    assert found["page"].endswith("</html>")
    for name in ("config.json", "model.safetensors", "parity.safetensors", "README.md"):
        for path in (ROOT / "agents").glob(f"*/{name}"):
            (carried,) = installed.glob(f"nhzoo/**/{path.parent.name}/{name}")
            assert carried.read_bytes() == path.read_bytes()
