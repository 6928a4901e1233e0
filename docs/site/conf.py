"""Settings of the documentation as a site, and the directive that lists a room's public names.

``make docs`` builds it. Its pages are those that are read on GitHub too. Beside this file stands what GitHub does not
have: the first page and the reference.
"""

import importlib.metadata
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from numpydoc.xref import DEFAULT_LINKS
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("data", "proposals", "backbone", "detect", "eval")
PUBLIC = {
    name: f"inception_rcnn.{room}.{name}" for room in ROOMS for name in import_module(f"inception_rcnn.{room}").__all__
}

project = "inception-rcnn"
release = importlib.metadata.version(project)
extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb", "sphinx_copybutton", "sphinx_design"
]  # fmt: skip

# The source folder is the root of the repository, so that links between pages are the same here and on GitHub. Nothing
# but the pages is looked at: data sets and environments may lie there too.
root_doc = "docs/site/index"
include_patterns = ["*.md", "benchmarks/README.md", "docs/*.md", "docs/*.ipynb", "docs/site/**.rst"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("benchmarks", "docs")]

highlight_language = "none"
myst_heading_anchors = 4
nb_execution_mode = "off"  # A test executes the notebook.
nb_merge_streams = True

# In docstrings a name in single backquotes is a link if it is a public one.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "special-members": "__call__"}
toc_object_entries_show_parents = "hide"
add_module_names = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {name: name for name in DEFAULT_LINKS} | PUBLIC

# No fonts and no scripts of other hosts: the folder can be read without a network.
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


class Public(SphinxDirective):
    """Lists public names of the current module in a table, each with its first line, then their docstrings."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse what autosummary and autodoc make of the names."""
        room = self.env.ref_context["py:module"]
        names = " ".join(self.content).split()
        lines = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]
        for name in names:
            kind = "class" if inspect.isclass(getattr(import_module(room), name)) else "function"
            lines += [f".. auto{kind}:: {name}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def skip_field(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which a class's docstring describes."""
    return True if (inspect.getdoc(member) or "").startswith("Alias for field number") else None


def find_public(app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Element) -> nodes.Node | None:
    """Resolve a public name of another room, which docstrings give without the room, or with the file that has it."""
    parts = node.get("reftarget", "").split(".")
    for start, part in enumerate(parts):
        if part in PUBLIC:
            name = ".".join([PUBLIC[part], *parts[start + 1 :]])
            page = node.get("refdoc", "")
            return env.get_domain("py").resolve_xref(env, page, app.builder, "obj", name, node, content)
    return None


def setup(app: Sphinx) -> None:
    """Add what is written here."""
    app.add_directive("public", Public)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("missing-reference", find_public)
