from .client import resolve as resolve
from .download import pull as pull
from .repos import Ref as Ref
from .repos import parse as parse
from .upload import Plan as Plan
from .upload import compare as compare
from .upload import push as push
