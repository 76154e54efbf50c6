"""bygones: how much a trained network depends on its training history.

The public names are the import list of `__init__.pyi`, in the order a reader should meet them. They
are loaded when they are first used, so that reading a report needs no torch.
"""

import sys

import lazy_loader

if sys.platform == "win32":  # a store's lock and the copies of a process are calls of POSIX
    raise ImportError(
        "bygones runs on Linux and macOS, and this is Windows. In the Windows Subsystem for Linux (WSL) it "
        "works as on Linux."
    )

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
