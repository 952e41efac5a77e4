"""Sphinx' settings for `make docs`."""

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import wsaction

project = "wsaction"
author = "the authors of wsaction"
release = wsaction.__version__
html_title = f"wsaction {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"exclude-members": "model_config"}
python_use_unqualified_type_names = True
add_module_names = False


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Links a name without its module. Names of other projects, and type variables, stay text."""
    target: str = node["reftarget"]
    domain = env.domains.python_domain
    last = target.removeprefix("~").rpartition(".")[2]
    found = [name for name in domain.objects if f".{name}".endswith(f".{target}")]
    if not found and (target.startswith("wsaction.") or node["reftype"] == "class"):  # an annotation
        found = [name for name in domain.objects if name.endswith(f".{last}")]
    if found:
        name = min(found, key=lambda name: (name.count("."), not name.startswith("wsaction.exceptions."), name))
        entry = domain.objects[name]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)
    is_annotation = node["reftype"] in ("class", "exc", "data") or last in TYPE_VARIABLES
    return text if is_annotation and node.get("refexplicit") is not True else None


TYPE_VARIABLES = ("Data", "F", "M", "ModelT", "OutputT", "Snapshot", "T")


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
