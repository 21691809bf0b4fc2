"""Export of a zoo entry as a bot of another system: a folder of a little code and the entry."""

from __future__ import annotations

from pathlib import Path

from nhzoo import __version__
from nhzoo.agents import registry
from nhzoo.errors import InputError
from nhzoo.policy.checkpoint import MAX_WEIGHTS, load_entry
from nhzoo.runtime import files

SYSTEMS = ("nethackers",)
"""Systems that an entry can be exported for."""

_ENTRY_FILES = ("config.json", "model.safetensors", "parity.safetensors", "README.md")

_BOT = '''"""The agent {name} of nhzoo as a bot of nethackers. Needs nhzoo {version}."""

import random
from pathlib import Path

import numpy as np
import torch

import nhzoo

torch.set_num_threads(1)
AGENT = nhzoo.load(Path(__file__).resolve().parent / "{name}")


class Bot:
    """Plays one game at a time; what it draws comes from a stream that `random`'s seed decides."""

    observation_keys = AGENT.observation_keys

    def reset(self, observation):
        self._uniforms = np.random.Generator(np.random.Philox(key=random.getrandbits(128)))
        self._state = AGENT.initial_state(1)

    def act(self, observation):
        seen = {{name: np.array(observation[name])[None] for name in self.observation_keys}}
        actions, self._state = AGENT.act(seen, self._state, self._uniforms.random(1))
        return int(actions[0])


def make_agent():
    return Bot()
'''

_README = """# {name} as a bot of nethackers

`bot.py` has `make_agent()`; what it makes has `reset(observation)` and `act(observation) -> index`.
The agent is beside it in `{name}/`: its configuration, weights and self-test, which runs when the
bot is loaded.

It needs `nhzoo` {version} (and so torch) in the Python that runs it. The image in which nethackers
scores registered programs has neither; where both are installed, its arena plays the bot:

```sh
python -m nethackers.arena.run --solution . --batch '[[0, "mon-hum-neu-mal"]]' --out results.json
```

So does `nhzoo evaluate DIR --protocol P --out RESULT`. Both seed Python's `random` before a game,
and from that the bot draws: the same seed, the same keys.
"""


def export_bot(entry: str | Path, system: str, out: Path) -> list[str]:
    """Write the entry (a name or a folder) as a bot into the new folder `out`; its files.

    InputError when `entry` is no entry or does not pass its self-test, or `out` is in use.
    """
    if system not in SYSTEMS:
        raise InputError(f"--as {system}: known is {', '.join(SYSTEMS)}")
    folder = registry.find_entry(entry).folder
    name = folder.resolve().name
    if not files.is_plain_name(name):
        raise InputError(f"{folder}: give the folder a name of letters, digits, '.', '_' and '-'")
    load_entry(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    manifest = {"schema": "nethackers.solution/v1", "name": name, "root": ".", "parents": []}
    manifest |= {"influences": [], "entrypoint": "bot.py"}
    written = {
        "bot.py": _BOT.format(name=name, version=__version__).encode(),
        "README.md": _README.format(name=name, version=__version__).encode(),
        "nethackers.solution.json": files.dump_json(manifest),
    }
    for part in _ENTRY_FILES:
        path = files.inside(folder, part)
        if part != "README.md" or path.exists():
            written[f"{name}/{part}"] = files.read_bounded(path, MAX_WEIGHTS + files.MEGABYTE)
    for part, data in written.items():
        files.atomic_write(out / part, data)
    return list(written)
