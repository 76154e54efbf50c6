"""Types of what bygones calls in scipy, which brings none. Any other name is `Any`."""

from typing import Any

def __getattr__(name: str) -> Any: ...
