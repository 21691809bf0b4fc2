"""Sweeps: a grid of runs planned, trained, measured; the law of the best learning rate."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
