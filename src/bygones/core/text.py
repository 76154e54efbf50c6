"""Text helpers: counts, lists and capitals in sentences."""

from __future__ import annotations


def format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def capitalize(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]
