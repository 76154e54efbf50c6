"""bygones: how much a trained network depends on its training history.

The public names are the import list of `__init__.pyi`, in the order a reader should meet them. They
are loaded when they are first used, so that reading a report needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
