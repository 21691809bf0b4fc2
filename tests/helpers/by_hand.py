"""A game of NetHack whose every key was chosen by looking at the screen: by no program or network.

The author of this test played it, game 0 of smoke-v1, on 24 November 2026: a language model at work
on nhzoo, reading each screen as a person at a terminal does and typing what seemed sensible. He
finds a chest, kicks its lock open, reads the scroll of magic mapping that was in it, takes some
gold, goes down, bumps into walls in the dark, and quits.
"""

from __future__ import annotations

KEYS = (
    b"n#loot\ry"  # to the chest: it is locked
    b"y\x04nn"  # back a step, and kick it: the lock breaks
    b"#loot\ryy\roA\r\r"  # a scroll, and a red gem
    b"rj"  # a map coalesces in my mind
    b"lllll_>._>."  # out by the east, after the dog
    b"lll_>.llllllu"  # through two doors, to the gold
    b"_>.>\r"  # and down
    b"kynlllllll"  # gold again, and into the corridor
    b"jlnnnllln"  # round a corner, where a door opens
    b"lllkssss"  # a closet; nothing is found
    b"#quit\ry"
)
"""What was typed after the opening text: 90 keys, the last of them the end."""
