"""The one function of fsspec that bygones calls. File systems have no stubs: they are `Any`."""

from typing import Any

def url_to_fs(url: str) -> tuple[Any, str]: ...
