from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from sphinx.util.docutils import SphinxDirective

import planner_core
from planner_core.config import ENGINE_KEYS, KEYS, Key

project = "planner-core"
author = "the planner-core authors"
copyright = "the planner-core authors, Apache-2.0"
version = release = version_of("planner-core")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"planner-core {version}"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

# Names that other projects document: their inventories would have to be fetched, and this needs no network.
nitpick_ignore_regex = [
    ("py:.*", r"(np|npt|numpy|collections|pathlib|ssl|types|typing|typing_extensions|attrs|hypothesis)\..*"),
    ("py:class", r"planner_core\..*\.[ST]|Target"),  # type variables, and an alias of literals
    ("py:class", r"planner_core\..*\._.*"),  # parts of a state that are nobody's business
    # parts of shells that have no page of names: they are used by the command line
    ("py:.*", r"planner_adapters\.simulation\..*|planner_adapters\.report\.builder\.Added"),
]


class KeyTable(SphinxDirective):
    """`{key-table} keys` or `engines`: the table that parses configuration files, as a table to read."""

    required_arguments = 1

    def run(self) -> list[Any]:
        keys = {"keys": KEYS, "engines": ENGINE_KEYS}[self.arguments[0]]
        rows = ["| key | meaning |", "|---|---|", *map(self._row, keys)]
        return self.parse_text_to_nodes("\n".join(rows))

    @staticmethod
    def _row(key: Key) -> str:
        names = ", ".join(f"`{name}`" for name in (key.name, *key.aliases))
        must = f"Must be {key.check.want.removesuffix(' or None')}."
        default = "" if key.default is None else f" Default: `{key.default}`."
        return f"| {names} | {key.meaning} {must}{default} |"


def find_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Lead a reference to where a name is defined (planner_core.data.roles.Role) to where it is public."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if name not in planner_core.__all__:
        return None
    target = f"planner_core.{name}"
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def tidy_defaults(app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, result: Any) -> Any:
    """attrs.NOTHING stands where a factory makes the default."""
    return signature and (signature.replace("NOTHING", "..."), result)


def close_blocks(app: Any, docname: str, source: list[str]) -> None:
    """The empty line that ends a doctest is for doctest."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app: Any) -> None:
    app.add_directive("key-table", KeyTable)
    app.connect("autodoc-process-signature", tidy_defaults)
    app.connect("missing-reference", find_public_name)
    app.connect("source-read", close_blocks)
