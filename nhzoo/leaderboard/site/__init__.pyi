from .builder import build as build
from .server import server as server
