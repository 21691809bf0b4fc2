"""Faster, equivalent replacements for AutoAscend's item code: kinds, weights and names."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable
from typing import Any


def _module(name: str) -> Any:
    return importlib.import_module(f"autoascend.{name}")


def items() -> None:
    """Install replacements for the queries made of every item at every step."""
    item, objects = _module("item.item"), _module("objects")
    nethack = importlib.import_module("nle.nethack")
    weapon, wand_class = nethack.WEAPON_CLASS, nethack.WAND_CLASS
    corpse, statue = objects.from_name("corpse"), objects.from_name("statue")
    arrows = frozenset({"arrow", "elven arrow", "orcish arrow", "silver arrow", "ya"})
    shot = arrows | {"crossbow bolt"}
    bows = frozenset({"bow", "elven bow", "orcish bow", "yumi", "crossbow", "sling"})
    thrown = frozenset(
        {"dagger", "orcish dagger", "dagger silver", "athame dagger", "elven dagger"}
        | {"worm tooth", "knife", "stiletto", "scalpel", "crysknife", "dart", "shuriken"}
    )
    attacks = frozenset(
        objects.from_name(name, wand_class)
        for name in ("cold", "death", "fire", "lightning", "magic missile")
    )
    globs = frozenset(
        objects.from_name(f"glob of {kind}")
        for kind in ("gray ooze", "brown pudding", "green slime", "black pudding")
    )
    tool, food, permonst = nethack.TOOL_CLASS, nethack.FOOD_CLASS, _module("glyph").MON.permonst
    kind = item.Item
    with_launcher = kind.is_fired_projectile

    def is_launcher(self: Any) -> bool:
        return self.category == weapon and len(self.objs) == 1 and self.objs[0].name in bows

    def is_fired_projectile(self: Any, launcher: Any = None) -> bool:
        if self.category != weapon or len(self.objs) != 1:
            return False
        return self.objs[0].name in shot if launcher is None else with_launcher(self, launcher)

    def is_thrown_projectile(self: Any) -> bool:
        return self.category == weapon and len(self.objs) == 1 and self.objs[0].name in thrown

    def is_offensive_usable_wand(self: Any) -> bool:
        if self.category != wand_class or len(self.objs) != 1:
            return False
        return self.objs[0] in attacks and self.uses != "no charges"

    def only(self: Any, object: Any) -> bool:
        if self.objs[0] != object:
            return False
        assert len(self.objs) == 1
        return True

    def is_possible_container(self: Any) -> bool:
        if self.content is not None or self.category != tool:
            return False
        if len(self.objs) == 1 and self.objs[0].name == "bag of tricks":
            return False
        return any(isinstance(each, objects.Container) for each in self.objs)

    def unit_weight(self: Any, with_content: bool = True) -> Any:
        if self.content is not None:
            return weigh(self, with_content)
        kinds, weight = self.__dict__.get("_weight", (None, None))
        if kinds is not self.objs:  # they are replaced when more is known
            weight = weigh(self, with_content)
            self._weight = (self.objs, weight)
        return weight

    def weigh(self: Any, with_content: bool) -> Any:
        if self.is_corpse():
            return permonst(self.monster_id).cwt
        if self.is_possible_container():
            return 100000
        if self.category == food and self.objs[0] in globs:
            assert len(self.objs) == 1
            return 10000
        kinds = self.objs
        weight = kinds[0].wt if len(kinds) == 1 else max([kind.wt for kind in kinds])
        if self.content is not None and with_content:
            weight += self.content.weight()
        return weight

    kind.is_launcher, kind.is_fired_projectile = is_launcher, is_fired_projectile
    kind.is_thrown_projectile = is_thrown_projectile
    kind.is_offensive_usable_wand = is_offensive_usable_wand
    kind.is_corpse = lambda self: only(self, corpse)
    kind.is_statue = lambda self: only(self, statue)
    kind.is_possible_container, kind.unit_weight = is_possible_container, unit_weight

    def flatten_items(items: Iterable[Any]) -> list[Any]:
        flat = []
        for each in items:
            flat.append(each)
            if each.content is not None:
                flat += flatten_items(each.content)
        return flat

    _everywhere(_module("item.utils").flatten_items, flatten_items)


def shown_as(item: Any) -> Any:
    """The glyphs that an item may be seen as; they stay the same."""
    known = item.__dict__.get("_shown")
    if known is None:
        known = item._shown = frozenset(item.display_glyphs())
    return known


def fights() -> None:
    """In a fight, the best thing to throw is looked for once, not for each direction."""
    fighting, inventory = _module("combat.fight_heur"), _module("item.inventory").Inventory
    damage = _module("glyph").WEA
    damage.expected_damage = staticmethod(functools.cache(damage.expected_damage))
    choose, best = fighting.get_available_actions, inventory.get_best_ranged_set

    def get_available_actions(agent: Any, monsters: Any) -> Any:
        agent.inventory._best = None
        try:
            return choose(agent, monsters)
        finally:
            del agent.inventory._best

    def get_best_ranged_set(self: Any, *args: Any, **options: Any) -> Any:
        if args or options or "_best" not in self.__dict__:
            return best(self, *args, **options)
        if self._best is None:
            self._best = best(self)
        return self._best

    fighting.get_available_actions = get_available_actions
    inventory.get_best_ranged_set = get_best_ranged_set


def _everywhere(original: Any, ours: Any) -> None:
    """Put a function in the place of another in all modules that have it by some name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("autoascend."):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, ours)


_RENAMED = {
    **{"wakizashi": "short sword", "ninja-to": "broadsword", "nunchaku": "flail"},
    **{"shito": "knife", "naginata": "glaive", "gunyoki": "food ration", "osaku": "lock pick"},
    **{"tanko": "plate mail", "kabuto": "helmet", "knives": "knife"},
    **dict.fromkeys(("pair of yugake", "yugake"), "pair of leather gloves"),
    **dict.fromkeys(("flint stone", "flint stones"), "flint"),
    **dict.fromkeys(("unlabeled scroll", "unlabeled scrolls"), "scroll of blank paper"),
    **{"blank paper": "scroll of blank paper", "eucalyptus leaves": "eucalyptus leaf"},
    "pair of lenses": "lenses",
}


def item_names() -> None:
    """Install a lookup of item names: every possible name is listed once."""
    nethack, objects = importlib.import_module("nle.nethack"), _module("objects")
    manager, copied = _module("item.item_manager").ItemManager, _module("utils").copy_result
    first = nethack.GLYPH_OBJ_OFF
    known: dict[str, set[int]] = {}
    seen: dict[str, set[int]] = {}
    kinds = {getattr(nethack, f"{kind}_CLASS"): spelling for kind, spelling in _SPELLINGS.items()}
    for number in range(nethack.NUM_OBJECTS):
        spelling = kinds.get(ord(nethack.objclass(number).oc_class))
        if spelling is None:
            continue
        described = nethack.objdescr.from_idx(number)
        if name := described.oc_name:
            for pattern in spelling[0]:
                known.setdefault(pattern.format(name), set()).add(number)
            if "FOOD" in spelling[2]:
                head, *rest = name.split()
                known.setdefault(head + "s " + " ".join(rest), set()).add(number)
        if look := described.oc_descr:
            for pattern in spelling[1]:
                seen.setdefault(pattern.format(look), set()).add(number)

    def parse_name(name: str) -> tuple[list[Any], list[int]]:
        name = _RENAMED.get(name, name.removeprefix("small ") if _small(name) else name)
        ids, looks = known.get(name, set()), list(seen.get(name, set()))
        if bool(ids) == bool(looks):
            unknown = objects.from_name("unknown")
            return [unknown], objects.possible_glyphs_from_object(unknown)
        if ids:
            assert len(ids) == 1, name
            meant = objects.objects[next(iter(ids))]
            return [meant], objects.possible_glyphs_from_object(meant)
        glyphs = [number + first for number in looks]
        each = [objects.possibilities_from_glyph(glyph) for glyph in glyphs]
        meanings = sorted(set().union(*each))
        assert name == "runed broadsword" or all(sorted(some) == meanings for some in each), name
        return meanings, glyphs

    manager.parse_name = staticmethod(copied(functools.lru_cache(1 << 18)(parse_name)))


def _small(name: str) -> bool:
    return name.startswith("small glob")


_SPELLINGS = {
    "SCROLL": (("scroll of {}", "scrolls of {}"), ("scroll labeled {}", "scrolls labeled {}"), ""),
    "SPBOOK": (("spellbook of {}", "spellbooks of {}"), ("{} spellbook", "{} spellbooks"), ""),
    "RING": (("ring of {}", "rings of {}"), ("{} ring", "{} rings"), ""),
    "WAND": (("wand of {}", "wands of {}"), ("{} wand", "{} wands"), ""),
    "AMULET": (("{}",), ("{} amulet", "{} amulets"), ""),
    "POTION": (("potion of {}", "potions of {}"), ("{} potion", "{} potions"), ""),
    "GEM": (("{}", "{}s"), ("{} gem", "{} gems", "{} stone", "{} stones"), ""),
    "ARMOR": (("{}", "pair of {}"), ("{}", "pair of {}", "{}s"), ""),
    "WEAPON": (("{}", "{}s"), ("{}", "{}s"), ""),
    "TOOL": (("{}", "{}s"), ("{}", "{}s"), ""),
    "FOOD": (("{}", "{}s"), ("{}", "{}s"), "FOOD"),
    "COIN": (("{}", "{}s"), (), ""),
    "ROCK": (("{}",), (), ""),
    "BALL": ((), ("{}",), ""),
}
