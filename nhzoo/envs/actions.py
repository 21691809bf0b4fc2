"""The 121 actions of NetHackChallenge: the key that each presses, and what keys are called."""

from __future__ import annotations

import numpy as np
from nle import nethack

ACTION_KEYS = np.array([int(action) for action in nethack.ACTIONS], dtype=np.uint8)
"""uint8 [121]: the key that each action of NetHackChallenge presses (118 are distinct)."""

TTY = ("tty_chars", "tty_colors", "tty_cursor")
"""The observations that a terminal shows, and all that nhzoo's policies read."""

ACTION_OF_KEY = np.full(256, -1, np.int64)
"""int64 [256]: the first action that presses a key, -1 for keys that no action presses."""
for _action in range(len(ACTION_KEYS) - 1, -1, -1):
    ACTION_OF_KEY[ACTION_KEYS[_action]] = _action


def key_name(key: int) -> str:
    """A key as a person would write it: "j", "^D", "M-q", "Esc"."""
    named = {27: "Esc", 13: "Enter", 10: "^J", 32: "Space", 127: "Del"}
    if key >= 128:
        return f"M-{key_name(key - 128)}"
    return named.get(key) or (chr(key) if key > 32 else f"^{chr(key + 64)}")
