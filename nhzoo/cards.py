"""Model cards: the README of a zoo entry, written from facts."""

from __future__ import annotations

from typing import Any

from nhzoo.policy import PolicyConfig


def model_card(name: str, config: PolicyConfig, training: dict[str, Any]) -> str:
    """The card of an entry trained by behavioural cloning; `training` as in its config.json."""
    loss = training["validation"]
    held_out = f"{loss['frames']:,} keys of {loss['games']} games"
    samples = f"{training['samples']:,} samples seen, {training['unique_samples']:,} unique"
    by = f"{training['threads']} CPU thread(s)"
    if training["processes"] > 1:
        by = f"{training['processes']} processes of {by}"
    if training["device"] != "cpu":
        by += f", {training['device']}"
    return f"""---
library_name: nhzoo
license: apache-2.0
pipeline_tag: reinforcement-learning
tags: [nethack, nle, NetHackChallenge-v0, imitation-learning, behavioral-cloning]
datasets: [{training["data"]}]
---
# {name}

An LSTM agent for NetHack (NLE 1.3, NetHackChallenge interface) with
**{config.params:,} parameters**, all counted, trained by behavioural cloning of AutoAscend playing
human monks. It reads what a terminal shows (characters, colours, cursor) and recalls the
keys it pressed and where it has been on the level.

| | |
|---|---|
| held-out loss | {loss["loss"]:.4f} nats per key ({held_out}) |
| held-out accuracy | {loss["accuracy"]:.1%} |
| data | `{training["data"]}`, {samples} |
| training compute | {training["flops"]:.3e} exact FLOPs, {config.train_flops:,} a frame |
| training time | {training["seconds"] / 60:.0f} minutes, {by} |
| sampling | softmax at temperature {training["temperature"]} |

```python
import nhzoo

if __name__ == "__main__":  # evaluate() starts worker processes
    agent = nhzoo.load("{name}")
    result = nhzoo.evaluate(agent, "monk-lite-v1", episodes=16, workers=2)
```

Made by:

```sh
{training["command"]}
```

Scores, with protocol, interval and every key pressed, are in `leaderboard/results/{name}/`.

Limits: it imitates, so it has the expert's habits without its plans; trained on monks only; scores
compare only within one protocol and machine type.
"""


def played_card(name: str, config: PolicyConfig, training: dict[str, Any]) -> str:
    """The card of an entry that learnt by playing; `training` as in its config.json."""
    start, teacher, recipe = training["start"], training["teacher"], training["recipe"]
    began = f"began as `{start['entry']}`" if start else "from scratch"
    if start and start["flops"]:
        began += f", which had cost {start['flops']:.3e} FLOPs"
    if teacher:
        began += f", held to `{teacher['entry']}`"
    if recipe["demonstrations"]:
        began += f", with demonstrations of `{recipe['demonstrations']}` beside"
    rewards = f"score, {training['rewards']}" + (
        f"; extras while training: {training['extras']}" if training["extras"] else ""
    )
    by = f"{training['actors']} actor(s) and a learner"
    score = training["mean_score"]
    reached = "none had ended" if score is None else f"{score:,.1f}"
    return f"""---
library_name: nhzoo
license: apache-2.0
pipeline_tag: reinforcement-learning
tags: [nethack, nle, NetHackChallenge-v0, impala]
---
# {name}

An LSTM agent for NetHack (NLE 1.3, NetHackChallenge interface) with
**{config.params:,} parameters**, all counted, that learnt by playing (IMPALA), {began}. It reads
what a terminal shows (characters, colours, cursor) and recalls the keys it pressed and where it
has been on the level.

| | |
|---|---|
| training | {training["samples"]:,} steps of {training["games"]:,} games, {recipe["character"]} |
| rewards | {rewards} |
| mean score of the latest games while it learnt | {reached} |
| training compute | {training["flops"]:.3e} exact FLOPs, actors and learner |
| training time | {training["seconds"] / 60:.0f} minutes, {by} |
| sampling | softmax at temperature {training["temperature"]} |

```python
import nhzoo

if __name__ == "__main__":  # evaluate() starts worker processes
    agent = nhzoo.load("{name}")
    result = nhzoo.evaluate(agent, "monk-lite-v1", episodes=16, workers=2)
```

Made by:

```sh
{training["command"]}
```

Scores, with protocol, interval and every key pressed, are in `leaderboard/results/{name}/`; the
games it learnt from are none of a protocol's. `critic.safetensors` values where a game stands, for
who trains on; playing does not need it.

Limits: it plays for score, which is not the same as playing well; scores compare only within one
protocol and machine type.
"""
