"""When two names look alike: nobody takes another's by a letter that the eye takes for another.

Names are ASCII (`submission.AGENT`), so no other script has look-alikes here, and no table of all
of Unicode is needed. What is folded are the ASCII pairs of Unicode's confusables.txt (UTS #39): I l
1 | and 0 O and rn m; and besides cl d, vv w, i l, 5 s, 2 z and 8 b, which it leaves out.
"""

from __future__ import annotations

import re

RESERVED = ("nhzoo", "expert", "human", "nethack", "nle", "admin", "maintainer")
"""Names that would speak for the project, besides those of `registry.BUILT_IN`."""

_ONE = str.maketrans({**dict.fromkeys("i1|!", "l"), "0": "o", "5": "s", "2": "z", "8": "b"})
_TWO = (("rn", "m"), ("cl", "d"), ("vv", "w"))


def skeleton(name: str) -> str:
    """What is left of a name when letters that look alike are one, and case and signs are none."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().translate(_ONE))
    for pair, one in _TWO:
        plain = plain.replace(pair, one)
    return plain
