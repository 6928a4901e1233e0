"""What all pages share: templates in which names stay text, and the hashes of the scripts and styles that may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .charts import shorten_name

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment(*folders: Path) -> Environment:
    """Make the environment of templates in these folders and in this one.

    What is put into a template is text, unless the template says otherwise. A number that JSON does not have, such as
    nan, is an error.

    Examples
    --------
    >>> page_environment().from_string("<h1>{{ title }}</h1>").render(title="Cats & <dogs>")
    '<h1>Cats &amp; &lt;dogs&gt;</h1>'
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = shorten_name
    environment.filters["hashes"] = content_hashes
    # nan is no JSON: better an error here than a page without plots.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


def content_hashes(texts: Iterable[str]) -> str:
    """List the sources of a Content-Security-Policy that let these scripts or styles of a page run, and no others.

    References
    ----------
    https://www.w3.org/TR/CSP3/#match-element-to-source-list

    Examples
    --------
    >>> content_hashes(["alert('Hello, world.');"])
    "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    """
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
