from .builder import build as build
from .builder import server as server
