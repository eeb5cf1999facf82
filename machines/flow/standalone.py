"""A drawing as a file of its own: with its colours in it, for pages and programs that are not ours.

The stored SVG has no colours: the site's style sheets give it those of the reader's theme. Here
these style sheets are written into the picture, with every variable replaced by its value, since
few programs besides browsers know variables.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

STATIC = Path(__file__).resolve().parents[2] / "static"
TOKENS, FLOW = STATIC / "site" / "tokens.css", STATIC / "flow" / "flow.css"

# Only what a picture that does not change needs; all that follows is for live ones and for pages.
END_OF_STATIC_PART = "/* Live"

# Nothing can be closed in a file; the sign of what is closed says that there is more.
FILE_RULES = """
.flow-ground { fill: var(--flow-canvas); }
.flow-state:not(.is-folded) > .flow-fold { display: none; }
"""

Theme = Literal["light", "dark"]

_VARIABLE = re.compile(r"(--[\w-]+)\s*:\s*([^;]+);")
_USE = re.compile(r"var\((--[\w-]+)\)")
_LIGHT_DARK = re.compile(r"light-dark\(([^,()]+),\s*([^()]+)\)")


def to_standalone(svg: str, theme: Theme = "light") -> str:
    """`svg` is to_svg(…, fix_widths=True): another program may not have our fonts."""
    opening, closing, contents = svg.partition("</desc>")
    view = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', opening)
    assert view is not None
    x, y, w, h = view.groups()
    ground = f'<rect class="flow-ground" x="{x}" y="{y}" width="{w}" height="{h}"/>'
    opening = opening.replace(' role="img"', f' role="img" data-theme="{theme}"', 1)
    return f"{opening}{closing}<style>{_style(theme)}</style>{ground}{contents}"


@cache
def _style(theme: Theme) -> str:
    css = _without_comments(FLOW.read_text("utf-8").split(END_OF_STATIC_PART)[0])
    variables = dict(_VARIABLE.findall(_without_comments(TOKENS.read_text("utf-8"))))
    variables |= dict(_VARIABLE.findall(css))
    rules = re.sub(r":root\s*\{[^}]*\}", "", css)
    rules += FILE_RULES
    while _USE.search(rules):
        rules = _USE.sub(lambda use: variables[use[1]], rules)
    rules = _LIGHT_DARK.sub(lambda pair: pair[1 if theme == "light" else 2].strip(), rules)
    return re.sub(r"\s+", " ", rules).strip().replace("&", "&amp;").replace("<", "&lt;")


def _without_comments(css: str) -> str:
    return re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
