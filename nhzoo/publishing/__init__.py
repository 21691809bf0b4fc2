"""What others see of a result or an entry: recordings, charts, pages, cards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
