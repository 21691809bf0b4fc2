"""Scaling laws: fits, forecasts, grades and sweeps over a table of runs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
