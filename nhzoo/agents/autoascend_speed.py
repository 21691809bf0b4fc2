"""Faster, equivalent replacements for parts of AutoAscend: the same keys in less time.

Most of its time goes into a few small functions that are called several times a step. `prepare`
puts ours in their places, in the process of a game and for the one version that they were held
against. None of them decides anything: each gives what the original gives for the same state, and
hands what is not ordinary (text that is no ASCII, markers on the screen) to the original. Left out
is what nobody reads: labels for drawing, and statistics. Recorded games, played again, show that
the keys are the same.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from nhzoo.agents.autoascend_items import fights, item_names, items, shown_as
from nhzoo.agents.autoascend_kernels import (
    GLYPHS,
    KEEPER,
    PET,
    SWALLOWED,
    looked_up,
    moved,
    search_priority,
    see,
    seen_items,
    table,
    touch,
    trap_searches,
    unseen_beside,
)
from nhzoo.agents.autoascend_kernels import kinds as kinds_of

Array = np.ndarray[Any, Any]

VERSION = "0.37.3"
"""Of `nethackers`: what the functions here were compared with."""

_DOUBTS = 3
"""How often in a row things may not look as remembered."""

_SURE = 400
"""Searches of one square below which AutoAscend changes nothing for having searched too long."""


_sets = SimpleNamespace()
"""Sets of glyphs as tables, for the compiled functions."""


def _module(name: str) -> Any:
    return importlib.import_module(f"autoascend.{name}" if name else "autoascend")


# ---- searching and exploring


def _to_search(agent: Any, limit: Any, plain: bool) -> Array:
    """What `explore1` asks: the squares worth searching, or `plain`, how much each is worth."""
    level, state, distance = agent.current_level(), agent.blstats, agent.bfs()
    counts = level.search_count
    most = counts.max()
    if most > _SURE:
        searched = counts[counts > 0]
        surplus = np.max(searched) - np.quantile(searched, 0.3)
        unhurt = state.hitpoints == state.max_hitpoints
        if surplus > _SURE and unhurt and counts[state.y, state.x] == most:
            agent._allow_walking_through_traps_turn = agent._last_turn
            if surplus > _SURE + 100:
                agent._allow_attack_all_turn = agent._last_turn
    sets = (_sets.stone, _sets.wall, _sets.doors)
    worth = search_priority(level.objects, level.walkable, distance, counts, *sets)
    return worth if plain else worth >= limit


def _to_visit(agent: Any, most: int) -> Array:
    """What `explore1` asks: the squares from which more is seen."""
    level = agent.current_level()
    seen, opened = level.seen, level.door_open_count
    return unseen_beside(seen, agent.glyphs, opened, most, _sets.stone, _sets.closed)


def _searches(self: Any, offset: int = 0) -> Iterator[bool]:
    """The strategy that searches for traps beside the hero."""
    agent = self.agent
    level, state = agent.current_level(), agent.blstats
    now = (level.was_on, level.objects, level.search_count, agent.last_observation["specials"])
    count = trap_searches(state.y, state.x, offset, *now, _sets.traps, _sets.pile)
    yield count > 0
    for _ in range(count):
        agent.search()


def _inner_parts(self: Any, door_open_count: int) -> tuple[Callable[..., Any], ...]:
    """Functions inside `explore1`, by name; they see what is in scope there."""

    def to_visit_func() -> Any:
        return _to_visit(self.agent, door_open_count)

    def to_search_func(prio_limit: Any = 0, return_prio: bool = False) -> Any:
        return _to_search(self.agent, prio_limit, return_prio)

    return to_visit_func, to_search_func


def _exploration() -> None:
    exploration, symbols = _module("exploration_logic"), _module("glyph").G
    _sets.stone, _sets.wall = table(symbols.STONE), table(symbols.WALL)
    _sets.doors, _sets.closed = table(symbols.DOORS), table(symbols.DOOR_CLOSED)
    _sets.traps = table(symbols.TRAPS)
    _sets.pile = int(importlib.import_module("nle.nethack").MG_OBJPILE)
    exploration._to_search, exploration._to_visit = _to_search, _to_visit
    logic = exploration.ExplorationLogic
    _replace_inner(logic.explore1, _inner_parts)
    logic.search_neighbors_for_traps = _module("strategy").Strategy.wrap(_searches)


def _replace_inner(function: Any, parts: Callable[..., Any]) -> None:
    """Have `function` make its inner functions from the code of those in `parts`, by name."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    assert isinstance(function, FunctionType)
    ours = {code.co_name: code for code in parts.__code__.co_consts if isinstance(code, CodeType)}
    constants = []
    for constant in function.__code__.co_consts:
        if isinstance(constant, CodeType) and constant.co_name in ours:
            code = ours.pop(constant.co_name)
            assert code.co_freevars == constant.co_freevars
            constant = code
        constants.append(constant)
    assert not ours, f"no inner functions {ours}"
    function.__code__ = function.__code__.replace(co_consts=tuple(constants))


# ---- sets of glyphs


_tables: dict[Any, Array] = {}
_MOST_TABLES = 4096


def _isin(glyphs: Array, *sets: Any) -> Array:
    """Where an int16 array has a glyph of any of the sets."""
    assert glyphs.dtype == np.int16
    try:
        known = _tables.get(sets)
    except TypeError:  # lists
        sets = tuple(tuple(members) for members in sets)
        known = _tables.get(sets)
    if known is None:
        if len(_tables) >= _MOST_TABLES:
            _tables.clear()
        known = _tables[sets] = table(*sets)
    return looked_up(glyphs, known)


def _glyph_sets() -> None:
    _module("utils").isin = _isin


# ---- what each step shows

_UNUSUAL = (b"--More--", b"(end)", b"\0", b"\n")
_PAGE = re.compile(rb"\(\d+ of \d+\)")


def _screen() -> None:
    player = _module("agent").Agent
    whole = player.get_message_and_popup

    def get_message_and_popup(self: Any, seen: dict[str, Array]) -> Any:
        screen = seen["tty_chars"].tobytes()
        message = seen["message"].tobytes()
        for mark in _UNUSUAL:
            if mark in screen:
                return whole(self, seen)
        if not screen.isascii() or not message.isascii():
            return whole(self, seen)
        if b" of " in screen and _PAGE.search(screen):
            return whole(self, seen)
        text = message.decode().replace("\0", " ").replace("\n", "").strip()
        return text.removesuffix("--More--"), [], True

    player.get_message_and_popup = get_message_and_popup

    def word(name: str) -> property:
        text, attribute = name.encode(), _WORDS[name]
        original = getattr(character.Property, attribute).fget

        def shown(self: Any) -> bool:
            line = self.agent.last_observation["tty_chars"][-1].tobytes()
            return text in line if line.isascii() else original(self)

        return property(shown)

    character = _module("character")
    for name, attribute in _WORDS.items():
        setattr(character.Property, attribute, word(name))
    other_form = character.Property.polymorph.fget

    def polymorph(self: Any) -> Any:
        agent = self.agent
        shown = agent.glyphs[agent.blstats.y, agent.blstats.x]
        return False if shown == agent.character.self_glyph else other_form(self)

    character.Property.polymorph = property(polymorph)


_WORDS = {"Conf": "confusion", "Stun": "stun", "Hallu": "hallu", "Blind": "blind"}


def _steps() -> None:
    agent = _module("agent")
    letters: dict[int, Any] = {}
    for action in agent.A.ACTIONS:
        letters.setdefault(int(action), action)

    def step(self: Any, action: Any, additional_action_iterator: Any = None) -> None:
        if self._no_step_calls:
            raise ValueError("Shouldn't call step now")
        if isinstance(action, str):
            assert len(action) == 1
            action = letters.get(ord(action)) or agent.A.ACTIONS[agent.A.ACTIONS.index(ord(action))]
        seen, reward, done, _ = self.env.step(action)  # its arrays are the bot's own
        self.step_count += 1
        self.score += reward
        row, column = seen["tty_cursor"]
        self.cursor_pos = (row - 1, column)
        if done:
            raise agent.AgentFinished
        self.update(seen, additional_action_iterator)

    agent.Agent.step = step


# ---- strategies


def _strategies() -> None:
    """Before the rest is imported: what strategies are called, and drawn as, is not needed."""
    strategy, utils = _module("strategy"), _module("utils")
    strategy.wraps = lambda function: lambda wrapped: wrapped

    def keep(self: Any, strategy: Any, config: Any = None) -> None:
        self.strategy, self.config = strategy, None

    strategy.Strategy.__init__ = keep

    def debug_log(text: str, function: Any = None, color: Any = None) -> Any:
        return function if function is not None else lambda function: function

    utils.debug_log = debug_log


# ---- what is known of the level


def _levels() -> None:
    agent, symbols = _module("agent"), _module("glyph").G
    player, unknown = agent.Agent, agent.Character.UNKNOWN
    floor = (symbols.FLOOR, symbols.STAIR_UP, symbols.STAIR_DOWN, symbols.DOOR_OPENED)
    things = (symbols.MONS, symbols.PETS, symbols.BODIES, symbols.OBJECTS, symbols.STATUES)
    kinds = kinds_of(
        (*floor, symbols.TRAPS, symbols.ALTAR, symbols.FOUNTAIN),
        things,
        (symbols.WALL, symbols.DOOR_CLOSED, symbols.BARS),
        (symbols.SWALLOW,),
        (symbols.PETS,),
        (symbols.SHOPKEEPER,),
    )
    altars = table(symbols.ALTAR)
    stone = table(symbols.STONE)
    corpses, shops, distance = player._update_level_corpses, player._update_level_shops, agent.nltk

    def update_level(self: Any) -> None:
        glyphs, state = self.glyphs, self.blstats
        level = self.current_level()
        every = see(glyphs, kinds, level.walkable, level.seen, level.objects)
        if every & SWALLOWED:
            return
        if every & PET:
            self._last_pet_seen = state.time
        self._update_level_items()
        if every & KEEPER:
            shops(self)
        y, x = state.y, state.x
        if "kill" in self.message or "destroy" in self.message or self.inventory.items_below_me:
            corpses(self)
        else:
            level.corpses_to_eat.pop((y, x), None)
        places = looked_up(level.objects, altars)
        if places.any():
            for place in zip(*places.nonzero(), strict=True):
                level.altars.setdefault(place, unknown)
        level.was_on[y, x] = True
        touch(y, x, glyphs, stone, level.walkable, level.seen, level.objects)
        engraving = self.inventory.engraving_below_me
        if engraving and distance.edit_distance(engraving, "ad aerarium") <= 6:
            for ny, nx in self.neighbors(y, x, shuffle=False, diagonal=False):
                if not level.walkable[ny, nx]:
                    level.forbidden[ny, nx] = True

    player.update_level = update_level
    covered = table(symbols.MONS, symbols.PETS)
    pile = int(importlib.import_module("nle.nethack").MG_OBJPILE)

    def _update_level_items(self: Any) -> None:
        level, state, glyphs = self.current_level(), self.blstats, self.glyphs
        here = self.inventory.items_below_me
        level.items[state.y, state.x], level.item_count[state.y, state.x] = here, len(here)
        doubts, specials = level.item_disagreement_counter, self.last_observation["specials"]
        known = (level.item_count, glyphs, specials, covered, pile, doubts)
        for place, as_many in seen_items(*known):
            y, x = divmod(place, glyphs.shape[1])
            glyph = glyphs[y, x]
            if as_many and any(glyph in shown_as(item) for item in level.items[y, x]):
                doubts[y, x] = 0
                continue
            doubts[y, x] += 1
            if doubts[y, x] > _DOUBTS:
                doubts[y, x] = level.item_count[y, x] = 0
                level.items[y, x] = ()

    player._update_level_items = _update_level_items


def _monsters() -> None:
    tracker, symbols = _module("monster_tracker").MonsterTracker, _module("glyph").G
    monsters, whole = table(symbols.MONS, symbols.INVISIBLE_MON), tracker.update

    def update(self: Any) -> None:
        agent, before = self.agent, self._last_glyphs
        if before is not None and not agent.character.prop.hallu:
            now = looked_up(agent.glyphs, monsters)
            now[agent.blstats.y, agent.blstats.x] = False
            old = (before, self.peaceful_monster_mask, self.monster_mask)
            sure, peaceful = moved(*old, agent.glyphs, now)
            if sure:
                self.monster_mask, self.peaceful_monster_mask = now, peaceful
                self._last_glyphs = agent.glyphs
                return
        whole(self)

    tracker.update = update


def _callbacks() -> None:
    player = _module("agent").Agent
    find_ways = player.bfs

    def bfs(self: Any, y: Any = None, x: Any = None) -> Array:
        if y is None and x is None and self.last_bfs_step == self.step_count:
            ways: Array = self.last_bfs_dis
            return ways.copy()
        found: Array = find_ways(self, y, x)
        return found

    def current_level(self: Any) -> Any:
        if self.__dict__.get("_level_of") is not self.blstats:
            key = (self.blstats.dungeon_number, self.blstats.level_number)
            if key not in self.levels:
                self.levels[key] = make_level(*key)
            self._level_of, self._level = self.blstats, self.levels[key]
        return self._level

    make_level = _module("level").Level
    player.bfs, player.current_level = bfs, current_level

    def call_update_functions(self: Any, funcs: Any = None) -> None:
        if funcs is None:
            funcs = self.on_update
        else:
            assert all(function in self.on_update for function in funcs)
        before, self._no_step_calls = self._no_step_calls, True
        try:
            for function in funcs:
                function()
        finally:
            self._no_step_calls = before

    player.call_update_functions = call_update_functions


# ---- all of it

EARLY: tuple[Callable[[], None], ...] = (_strategies,)
"""Before the rest of AutoAscend is imported."""

LATE: tuple[Callable[[], None], ...] = (
    *(_exploration, _glyph_sets, _screen, _steps, items, item_names, fights),
    *(_levels, _monsters, _callbacks),
)


def install() -> None:
    """Import AutoAscend with all of these in place; once in a process."""
    for part in EARLY:
        part()
    _module("agent")
    for part in LATE:
        part()
    _warm()


def _warm() -> None:
    """Compile, and fill caches that every game would fill: here its process is forked from."""
    objects, utils = _module("objects"), _module("utils")
    for kind in objects.objects:
        if kind is not None:
            objects.possible_glyphs_from_object(kind)
            objects.get_category(kind)
    none, glyphs = np.zeros(GLYPHS, np.bool_), np.zeros((21, 79), np.int16)
    flags, counts = np.zeros_like(glyphs, np.bool_), np.zeros_like(glyphs, np.int32)
    utils.bfs(0, 0, walkable=flags, walkable_diagonally=flags, can_squeeze=False)
    search_priority(glyphs, flags, counts, counts, none, none, none)
    unseen_beside(flags, glyphs, counts, 0, none, none)
    trap_searches(0, 0, 0, flags, glyphs, counts, flags.view(np.uint8), none, 0)
    looked_up(glyphs, none)
    moved(glyphs, flags, flags, glyphs, flags)
    seen_items(counts, glyphs, flags.view(np.uint8), none, 0, counts)
    see(glyphs, np.zeros(GLYPHS, np.int64), flags, flags, glyphs)
    touch(0, 0, glyphs, none, flags, flags, glyphs)
