"""Hold the faster parts of AutoAscend against the originals, in a process of its own.

    python -m tests.helpers.autoascend_parts

A failed comparison is an AssertionError; the last line counts what was compared.
"""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import CellType, CodeType, FunctionType, SimpleNamespace

import numpy as np

from nhzoo.agents import autoascend_speed
from nhzoo.runtime import kernels

SHAPE = (21, 79)
rng = np.random.default_rng(20)
draw = random.Random(20)


def originals() -> SimpleNamespace:
    """The functions of AutoAscend as it brings them."""
    agent = importlib.import_module("autoascend.agent")
    exploration = importlib.import_module("autoascend.exploration_logic")
    item = importlib.import_module("autoascend.item.item")
    utils = importlib.import_module("autoascend.utils")
    methods = ("is_launcher", "is_fired_projectile", "is_thrown_projectile", "unit_weight")
    methods += ("is_offensive_usable_wand", "is_corpse", "is_statue", "is_possible_container")
    words = ("confusion", "stun", "hallu", "blind")
    property_of = importlib.import_module("autoascend.character").Property
    return SimpleNamespace(
        isin=utils.isin,
        parse_name=importlib.import_module("autoascend.item.item_manager").ItemManager.parse_name,
        items={name: getattr(item.Item, name) for name in methods},
        message=agent.Agent.get_message_and_popup,
        words={name: vars(property_of)[name] for name in words},
        update_level=agent.Agent.update_level,
        level_items=agent.Agent._update_level_items,
        monsters=importlib.import_module("autoascend.monster_tracker").MonsterTracker.update,
        polymorph=vars(property_of)["polymorph"],
        traps=exploration.ExplorationLogic.search_neighbors_for_traps,
        explore=exploration.ExplorationLogic.explore1.__wrapped__.__code__,
        scope=vars(exploration).copy(),
    )


def inner(code: CodeType, name: str, scope: dict, defaults: tuple = (), **cells: object):
    """A function inside another, as it would be with these variables around it."""
    constant = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    closure = tuple(CellType(cells[cell]) for cell in constant.co_freevars)
    return FunctionType(constant, scope, name, defaults, closure)


def a_level() -> SimpleNamespace:
    """A level of glyphs that matter, with marks and counts drawn at random."""
    symbols = importlib.import_module("autoascend.glyph").G
    kinds = [sorted(members) for members in symbols.DICT.values() if isinstance(members, frozenset)]
    likely = [g for name in ("STONE", "WALL", "FLOOR", "DOORS") for g in getattr(symbols, name)]
    pool = np.array(likely * 12 + [g for kind in kinds for g in kind if kind is not kinds[0]])
    pool = pool[~symbols_of(symbols.SWALLOW, pool)].astype(np.int16)
    objects = rng.choice(np.append(np.repeat(np.int16(-1), 300), pool), SHAPE)
    return SimpleNamespace(
        objects=objects,
        walkable=rng.random(SHAPE) < 0.5,
        seen=rng.random(SHAPE) < 0.7,
        was_on=rng.random(SHAPE) < 0.1,
        search_count=rng.integers(0, 20, SHAPE, dtype=np.int32) * (rng.random(SHAPE) < 0.2),
        door_open_count=rng.integers(0, 6, SHAPE, dtype=np.int32),
        forbidden=np.zeros(SHAPE, bool),
        corpses_to_eat={},
        altars={},
        glyphs=rng.choice(pool, SHAPE),
        key=lambda: (0, 1),
    )


def symbols_of(members: frozenset, glyphs: np.ndarray) -> np.ndarray:
    """Which glyphs are members."""
    return np.array([int(glyph) in members for glyph in glyphs.reshape(-1)]).reshape(glyphs.shape)


def an_agent(level: SimpleNamespace) -> SimpleNamespace:
    """As much of the bot as exploring looks at."""
    state = SimpleNamespace(y=int(rng.integers(21)), x=int(rng.integers(79)), time=77)
    state.hitpoints, state.max_hitpoints = draw.choice([(9, 9), (8, 9)])
    distance = rng.integers(-1, 9, SHAPE, dtype=np.int32)
    agent = SimpleNamespace(
        current_level=lambda: level,
        bfs=distance.copy,
        blstats=state,
        glyphs=level.glyphs,
        last_observation={"specials": rng.integers(0, 256, SHAPE, dtype=np.uint8)},
        stats_logger=SimpleNamespace(log_max_value=lambda *_: None, log_event=lambda *_: None),
        _last_turn=5,
        _allow_walking_through_traps_turn=-1,
        _allow_attack_all_turn=-1,
        _last_pet_seen=0,
        message="",
        monster_tracker=SimpleNamespace(peaceful_monster_mask=np.zeros(SHAPE, bool)),
        inventory=SimpleNamespace(items_below_me=[], engraving_below_me=""),
    )
    module = importlib.import_module("autoascend.agent")
    agent.neighbors = lambda *args, **kwargs: module.Agent.neighbors(agent, *args, **kwargs)
    agent._update_level_items = agent._update_level_shops = agent._update_level_corpses = lambda: (
        None
    )
    return agent


def same_exploring(old: SimpleNamespace) -> int:
    """What is to be visited and searched, how much each square is worth, what is allowed."""
    exploration = importlib.import_module("autoascend.exploration_logic")
    code = exploration.ExplorationLogic.explore1.__wrapped__.__code__  # imported as it comes
    compared = 0
    for number in range(120):
        level = a_level()
        agent = an_agent(level)
        here = (agent.blstats.y, agent.blstats.x)
        if number % 3 == 0:  # so many searches that traps and all monsters are allowed
            level.search_count[here] = draw.choice([400, 401, 402, 430, 501, 600, 40_000])
        bot, found = SimpleNamespace(agent=agent), []
        for source, scope in ((old.explore, old.scope), (code, vars(exploration))):
            agent._allow_walking_through_traps_turn = agent._allow_attack_all_turn = -1
            names = {"self": bot, "door_open_count": number % 5}
            search = inner(source, "to_search_func", scope, (0, False), **names)
            visit = inner(source, "to_visit_func", scope, (), **names)
            worth = search(return_prio=True)
            assert worth.dtype == np.float32
            allowed = (agent._allow_walking_through_traps_turn, agent._allow_attack_all_turn)
            found.append((worth.tobytes(), search(-50).tobytes(), visit().tobytes(), allowed))
        assert found[0] == found[1]
        for offset in (0, 1, 7):
            searched = []
            agent.search = lambda searched=searched: searched.append(1)
            for traps in (old.traps, exploration.ExplorationLogic.search_neighbors_for_traps):
                searched.append("next")
                if traps(bot, offset).check_condition():
                    traps(bot, offset).run()
            middle = searched.index("next", 1)
            assert searched[1:middle] == searched[middle + 1 :]
            compared += 1
    return compared


def same_levels(old: SimpleNamespace) -> int:
    """What is known of a level after a look at it."""
    new = importlib.import_module("autoascend.agent").Agent.update_level
    parts = ("objects", "walkable", "seen", "was_on", "forbidden")
    for number in range(200):
        level = a_level()
        agent = an_agent(level)
        agent.inventory.engraving_below_me = ["", "ad aerarium", "Elbereth"][number % 3]
        if number % 10 == 0:
            level.glyphs[3, 3] = min(importlib.import_module("autoascend.glyph").G.SWALLOW)
        before, results = {part: getattr(level, part).copy() for part in parts}, []
        for update in (old.update_level, new):
            for part in parts:
                setattr(level, part, before[part].copy())
            agent._last_pet_seen, level.altars, level.corpses_to_eat = 0, {(1, 1): 2}, Dead()
            update(agent)
            arrays = [getattr(level, part).tobytes() for part in parts]
            results.append((arrays, agent._last_pet_seen, level.altars))
        assert results[0] == results[1]
    return 200


def same_remembered_items(old: SimpleNamespace) -> int:
    """Which remembered things are doubted, and which forgotten."""
    new = importlib.import_module("autoascend.agent").Agent._update_level_items
    item, objects = (importlib.import_module(f"autoascend.{m}") for m in ("item.item", "objects"))
    first = importlib.import_module("nle.nethack").GLYPH_OBJ_OFF
    kinds = [n for n, kind in enumerate(objects.objects) if kind is not None][5:120]
    forgotten = 0
    for _ in range(60):
        level, states = a_level(), []
        agent = an_agent(level)
        level.items = np.empty(SHAPE, object)
        level.items.fill(())
        level.item_count = np.zeros(SHAPE, np.int32)
        for y, x in rng.integers(0, SHAPE, (200, 2)):
            numbers = draw.sample(kinds, draw.choice([1, 1, 2]))
            level.items[y, x] = [item.Item([objects.objects[n]], [first + n]) for n in numbers]
            level.item_count[y, x] = len(numbers)
            if draw.random() < 0.5:
                level.glyphs[y, x] = first + numbers[-1]
        agent.inventory.items_below_me = draw.choice([[], level.items[y, x]])
        level.item_disagreement_counter = rng.integers(0, 5, SHAPE, dtype=np.int32)
        before = [level.items, level.item_count, level.item_disagreement_counter]
        for update in (old.level_items, new):
            items, counts, doubts = (array.copy() for array in before)
            level.items, level.item_count, level.item_disagreement_counter = items, counts, doubts
            update(agent)
            things = [list(map(id, some)) for some in items.reshape(-1)]
            states.append((things, counts.tobytes(), doubts.tobytes()))
        assert states[0] == states[1]
        forgotten += int((before[1] > counts).sum())
    return forgotten


def same_monsters(old: SimpleNamespace) -> int:
    """Which monsters are peaceful after a step, and whether it has to be asked for."""
    module = importlib.import_module("autoascend.monster_tracker.monster_tracker")
    symbols = importlib.import_module("autoascend.glyph").G
    few, floor = sorted(symbols.MONS)[:4], min(symbols.FLOOR)
    pool, asked = np.array([*few, *[floor] * 250], np.int16), 0
    for _ in range(300):
        before, peaceful = rng.choice(pool, SHAPE), rng.random(SHAPE) < 0.5
        before[5:] = floor
        monsters = np.isin(before, few)
        after, shown = np.roll(before, rng.integers(-1, 2, 2), (0, 1)), []
        for update in (old.monsters, module.MonsterTracker.update):
            character = SimpleNamespace(prop=SimpleNamespace(hallu=False))
            agent = SimpleNamespace(glyphs=after, character=character)
            agent.blstats = SimpleNamespace(y=15, x=15)
            tracker = module.MonsterTracker(agent)
            tracker._last_glyphs, tracker.monster_mask = before, monsters
            tracker.peaceful_monster_mask = peaceful & monsters
            calls: list[int] = []
            tracker.take_all_monsters = lambda calls=calls: calls.append(1) or {}
            update(tracker)
            masks = (tracker.monster_mask, tracker.peaceful_monster_mask, tracker._last_glyphs)
            shown.append(([mask.tobytes() for mask in masks], calls))
        assert shown[0] == shown[1]
        asked += len(calls)
    assert 0 < asked < 300
    return 300 - asked


class Dead(dict):
    """Corpses of a level: none."""

    def __missing__(self, key: object) -> dict:
        self[key] = {}
        return self[key]


def same_items(old: SimpleNamespace) -> int:
    """Every kind of item, alone and among others, whatever else is known of it."""
    item, objects = (importlib.import_module(f"autoascend.{m}") for m in ("item.item", "objects"))
    nethack = importlib.import_module("nle.nethack")
    compared = 0
    for number, kind in enumerate(objects.objects):
        glyph = nethack.GLYPH_OBJ_OFF + number
        if kind is None or not nethack.glyph_is_object(glyph):
            continue
        choices = objects.possibilities_from_glyph(glyph)
        for kinds, uses in product(([kind], choices), ("", "no charges", "0:5")):
            if kinds[0] is not kind and objects.get_category(kinds[0]) != objects.get_category(
                kind
            ):
                continue
            one = item.Item(kinds, [glyph], uses=uses, monster_id=3)
            for content in (None, SimpleNamespace(weight=lambda: 7)):
                one.content = content
                for name, method in old.items.items():
                    assert outcome(method, one) == outcome(getattr(item.Item, name), one), name
                    compared += 1
    return compared


def outcome(function: object, *args: object) -> object:
    """What a function gives, or the kind of its failure."""
    try:
        return function(*args)  # type: ignore[operator]
    except Exception as error:
        return type(error)


def same_names(old: SimpleNamespace) -> int:
    """Names of things as the game spells them, and others."""
    nethack = importlib.import_module("nle.nethack")
    new = importlib.import_module("autoascend.item.item_manager").ItemManager.parse_name
    patterns = ("{}", "{}s", "scroll of {}", "potions of {}", "pair of {}", "{} gem", "{} potion")
    patterns += ("scroll labeled {}", "wand of {}", "{} wands", "{} spellbook", "ring of {}")
    names = ["knives", "kabuto", "yugake", "small glob of gray ooze", "cloves of garlic", "nothing"]
    for number in draw.sample(range(nethack.NUM_OBJECTS), 40):
        described = nethack.objdescr.from_idx(number)
        names += [p.format(described.oc_name or "") for p in draw.sample(patterns, 2)]
        names += [p.format(described.oc_descr or "") for p in draw.sample(patterns, 2)]
    for name in names:
        assert outcome(old.parse_name, name) == outcome(new, name), name
    return len(names)


def same_screens(old: SimpleNamespace) -> int:
    """Messages, markers and words on the screen, ordinary and not."""
    agent = importlib.import_module("autoascend.agent").Agent
    words = importlib.import_module("autoascend.character").Property
    texts = [b"", b"You see here a scroll.", b"It hits!--More--", b"caf\xe9", b"a\nb", b" x "]
    rows = [b"", b"--More--", b"(end)", b"(1 of 2)", b"(1 of x)", b"\xff", b"a\nb", b"Conf Hallu"]
    rows += [b"Blind Stun", b"sword of 3)"]
    compared = 0
    for text, first, last in product(texts, rows, rows):
        seen = {"message": np.zeros(256, np.uint8), "tty_chars": np.full((24, 80), 32, np.uint8)}
        for row, line in ((seen["message"], text), (seen["tty_chars"][0], text + first)):
            row[: len(line)] = np.frombuffer(line, np.uint8)
        seen["tty_chars"][-1, 5 : 5 + len(last)] = np.frombuffer(last, np.uint8)
        player = SimpleNamespace(_find_marker=agent._find_marker, last_observation=seen)
        assert outcome(old.message, player, seen) == outcome(
            agent.get_message_and_popup, player, seen
        )
        for name, original in old.words.items():
            bot = SimpleNamespace(agent=player)
            assert outcome(original.fget, bot) == outcome(vars(words)[name].fget, bot)
        compared += 1
    for shown, own in product((0, 7, 380, 2359), (None, 0, 7, 2359)):
        agent = SimpleNamespace(glyphs=np.full(SHAPE, shown, np.int16))
        agent.blstats, agent.character = SimpleNamespace(y=3, x=4), SimpleNamespace(self_glyph=own)
        bot = SimpleNamespace(agent=agent)
        assert old.polymorph.fget(bot) == words.polymorph.fget(bot)
    return compared


def same_sets(old: SimpleNamespace) -> int:
    """Sets of glyphs of every kind that is asked for."""
    new = importlib.import_module("autoascend.utils").isin
    symbols = importlib.import_module("autoascend.glyph").G
    sets = [(symbols.WALL, symbols.DOORS), ([7, 9],), ({1, 2}, (3,)), (symbols.MONS,), ([-1],)]
    for members in sets:
        glyphs = rng.integers(-1, 5_976, SHAPE, dtype=np.int16)
        for array in (glyphs, glyphs[2:9, 3:8], glyphs.T):
            assert np.array_equal(old.isin(array, *members), new(array, *members))
    return len(sets)


def main() -> None:
    """Compare everything."""
    spec = find_spec("nethackers")
    assert spec is not None and spec.origin is not None
    sys.path.insert(0, str(Path(spec.origin).parent / "roots" / "autoascend"))
    warnings.simplefilter("ignore")
    kernels.adopt()
    old = originals()
    autoascend_speed.install()
    tests = (same_exploring, same_levels, same_items, same_names, same_screens, same_sets)
    tests += (same_remembered_items, same_monsters)
    print(*(f"{test.__name__} {test(old)}" for test in tests))


if __name__ == "__main__":
    main()
