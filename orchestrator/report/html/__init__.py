"""The report as one HTML page that needs nothing but itself: values in Python, markup and styles in files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.shown import visible_lines

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent


def rendered(template: str, **values: object) -> str:
    """Return a file of this folder with ``values`` in their places, escaped: XML may hold no control characters."""
    return visible_lines(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
