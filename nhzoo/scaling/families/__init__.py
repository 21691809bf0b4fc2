"""Families of laws beyond the surface and the parabolas, and what a set of laws predicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
