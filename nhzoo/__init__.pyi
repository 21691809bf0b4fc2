from .agents import Agent as Agent
from .agents import list_agents as list_agents
from .agents import load as load
from .envs import PROTOCOLS as PROTOCOLS
from .envs import NetHackEnv as NetHackEnv
from .envs import Protocol as Protocol
from .envs import get_protocol as get_protocol
from .errors import CheckFailed as CheckFailed
from .errors import InputError as InputError
from .errors import NhzooError as NhzooError
from .evaluation import evaluate as evaluate
from .evaluation import record as record
from .evaluation import verify as verify
from .scaling import fit as fit
from .scaling import forecast as forecast

__version__: str

def register_envs() -> None: ...
