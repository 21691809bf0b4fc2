"""A bot that sees text: what a language model would be asked, and how its answer becomes a key.

A bot has `reset(observation)` and `act(observation) -> action index`, one game at a time, in a
process of its own. `ask` stands for the call of a model; here it is a few rules.

    nhzoo evaluate text_bot:make_agent --protocol smoke-v1 --episodes 2 --out results/text-bot
"""

from nle import nethack

KEYS = {name: int(key) for name, key in nethack.CompassDirection.__members__.items()}
KEYS |= {"search": ord("s"), "more": 13, "yes": ord("y"), "no": ord("n"), "down": ord(">")}
ACTIONS = [int(action) for action in nethack.ACTIONS]
PROMPT = """You play NetHack. Answer with one of: {words}.

{screen}
"""


def screen_of(observation):
    """The 24 lines of the terminal."""
    return "\n".join(bytes(line).decode("latin-1").rstrip() for line in observation["tty_chars"])


def ask(prompt, turn):
    """A model's answer to the prompt: one word of `KEYS`."""
    screen = prompt.partition("\n\n")[2]
    top = screen.partition("\n")[0]
    if "--More--" in screen:
        return "more"
    if "[yn" in top:
        return "no"
    return list(KEYS)[turn // 5 % 8] if turn % 5 else "search"


class TextBot:
    """Turns screens into prompts and words into actions."""

    observation_keys = ("tty_chars",)

    def reset(self, observation):
        """A new game."""
        self.turn = 0

    def act(self, observation):
        """The index of the action that presses the key of the model's answer."""
        self.turn += 1
        prompt = PROMPT.format(words=", ".join(KEYS), screen=screen_of(observation))
        return ACTIONS.index(KEYS[ask(prompt, self.turn)])


def make_agent():
    """What nhzoo calls for every game."""
    return TextBot()
