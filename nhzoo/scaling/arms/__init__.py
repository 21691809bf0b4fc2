"""Arms: laws of several methods, data sets or networks, compared at a scale."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
