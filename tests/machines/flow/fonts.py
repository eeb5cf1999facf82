"""Widths of texts in the fonts that the pages ship, read from the font files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import instantiateVariableFont

FONTS = Path(__file__).resolve().parents[3] / "static" / "site" / "fonts"
FILES = {"sans": "inter.woff2", "mono": "jetbrains-mono.woff2"}

# Of the font size: how far letters reach above and below the line they stand on.
ASCENT, DESCENT = 0.76, 0.24


@cache
def _advances(face: str, weight: int) -> dict[str, float]:
    font = instantiateVariableFont(TTFont(FONTS / FILES[face]), {"wght": weight})
    units = font["head"].unitsPerEm
    cmap = font.getBestCmap()
    return {chr(code): font["hmtx"][glyph][0] / units for code, glyph in cmap.items()}


def text_width(text: str, face: str, size: float, weight: int) -> float | None:
    """In px; None if the font lacks a character."""
    advances = _advances(face, weight)
    if any(char not in advances for char in text):
        return None
    return size * sum(advances[char] for char in text)
