"""BALROG's NetHack progression: how far a game got, as a fraction from 0 to 1.

Each value estimates how likely a human player who got this far was to go on and ascend. BALROG
(Paglieri et al. 2024, arXiv:2411.13543) shows it as a percentage.
"""

from operator import index
from typing import Final

# Figures from BALROG, https://github.com/balrog-ai/BALROG, MIT licence, the BALROG authors: keys
# "Dlvl:n" and "Xp:n" of balrog/environments/nle/achievements.json. BartekCupial/nle-progress, by
# one of them and MIT as well, has the same metric. Scores depend on them: do not round or refit.
# The position in a tuple is the depth or level. Position 0 is ours: a game that never started.
# fmt: off
DEPTH_PROGRESSION: Final[tuple[float, ...]] = (
    0.0,  # 0
    0.0, 0.015392269075361172, 0.017539535798967013, 0.021221378364235505,  # 1-4
    0.026482449457437766, 0.035428686118173014, 0.04846098359243788, 0.0695812141543123,  # 5-8
    0.09770935198701912, 0.12558597019922987, 0.1612677822768481, 0.20612854836308672,  # 9-12
    0.2566039887664476, 0.29247245425293333, 0.30881240110986263, 0.3249071349317381,  # 13-16
    0.34007883702829594, 0.3526455577544006, 0.3654881095022441, 0.37895667923256743,  # 17-20
    0.39293747679675045, 0.40832255575976223, 0.4258360748858015, 0.445181408701678,  # 21-24
    0.46637631565303056, 0.5067605633802816, 0.5543572044866264, 0.6015648510382184,  # 25-28
    0.6465049415992812, 0.6913110342176086, 0.7101094299371864, 0.7176456494828894,  # 29-32
    0.7232124894378948, 0.7284405900470092, 0.7327761924174481, 0.7368528917489855,  # 33-36
    0.7421458943978863, 0.7471321695760599, 0.753731343283582, 0.7610398408061306,  # 37-40
    0.76740810314648, 0.7725338491295938, 0.7771626297577855, 0.7812567949554251,  # 41-44
    0.7858986134802957, 0.7890256738822022, 0.7929718875502008, 0.7967408445768355,  # 45-48
    0.8018467495718222, 0.8067964442444019,  # 49-50
)
EXPERIENCE_LEVEL_PROGRESSION: Final[tuple[float, ...]] = (
    0.0,  # 0
    0.0, 0.01847840456172601, 0.02081163581974355, 0.024160136550546978,  # 1-4
    0.029108986017138745, 0.036887590648350246, 0.0507583712345433, 0.07453595273884014,  # 5-8
    0.11704996473565571, 0.17909953770432294, 0.25480449090205187, 0.33264942385807844,  # 9-12
    0.41442590519821954, 0.49403949403949404, 0.5778823703813513, 0.6261221999477034,  # 13-16
    0.656281764586298, 0.6810218550418937, 0.7015328516442704, 0.7174494081710576,  # 17-20
    0.7286977843944303, 0.7371004909327723, 0.7443446629532795, 0.7513449678519879,  # 21-24
    0.7585537128343045, 0.7642151855635002, 0.7703376822716808, 0.7759810263044415,  # 25-28
    0.7783345263660224, 0.7804561949196475,  # 29-30
)
# fmt: on
# The deepest level NLE's dungeon.def can build: 29 levels of the Dungeons of Doom, 24 of Gehennom.
MAX_DEPTH: Final = 53
MAX_EXPERIENCE_LEVEL: Final = 30


def progression(max_depth: int, max_experience_level: int, *, ascended: bool = False) -> float:
    """Return BALROG's progression of one game, a fraction in [0, 1].

    The larger of the table's values for the two milestones. Both come from the numbers NLE reports
    in `blstats`, never from the screen, where graffiti and descriptions can name places.

    Arguments:
        max_depth: the largest `blstats[12]` of the game, in levels below the surface, whichever
            dungeon it was in, as in BALROG: depth 10 counts alike in the Gnomish Mines and in the
            main dungeon. 0 to 53; 0 if the game never started.
        max_experience_level: the largest `blstats[18]` of the game, 0 to 30; 0 if the game never
            started. A level can be drained, and `blstats` is all zeros once a game has ended: the
            last observation may give less than BALROG, which keeps the best.
        ascended: whether the game was won, which makes it 1.0.

    It is BALROG's own number except in two cases. BALROG's table has 1.0 for an ascension but its
    code never looks that up; here it counts. The table ends at depth 50, and BALROG ignores deeper
    levels; here they count as 50, which differs only for a game that skipped level 50. The table
    also lists the first five Quest levels and the Astral Plane. BALROG's code looks them up no
    more than we do; nethackers does, so its figure can be larger for games that got there.

    Raises `ValueError` for a depth or level that no game can have.

    """
    depth, level = index(max_depth), index(max_experience_level)
    if not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"max_depth must be from 0 to {MAX_DEPTH}, not {depth}")
    if not 0 <= level <= MAX_EXPERIENCE_LEVEL:
        raise ValueError(
            f"max_experience_level must be from 0 to {MAX_EXPERIENCE_LEVEL}, not {level}"
        )
    if ascended:
        return 1.0
    deepest_listed = len(DEPTH_PROGRESSION) - 1
    return max(DEPTH_PROGRESSION[min(depth, deepest_listed)], EXPERIENCE_LEVEL_PROGRESSION[level])
