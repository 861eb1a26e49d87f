"""How `make docs` builds the site from these pages and the docstrings. It asks no network."""

from __future__ import annotations

import ast
import importlib
import logging
import re
from functools import lru_cache
from importlib.metadata import version as version_of
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # tells of kernels it lacks

project = "MAPoRL"
author = "MAPoRL contributors"
copyright = author
version = release = version_of("maporl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True  # a name of ours that is on no page is a warning; `make docs` makes it an error
nitpick_ignore_regex = [
    ("py:.*", r"(?s)(?!maporl_(env|agents)\b).*"),  # other libraries', and code that is no name
    ("py:class", r".*\._\w+"),  # private base classes
    ("py:class", r".*\.verifiers\.Debate\w+"),  # based on a library that is not installed here
    ("py:.*", r".*\.([A-Z]|Item|Result|Pair|Number|Made|Proposed|Proposer)"),  # type variables
]
suppress_warnings = ["ref.python"]  # a short name that several modules define

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

default_role = "py:obj"  # single backticks in docstrings: code, and a link where the name is known
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    "tianshou",
    "openenv",
    "verifiers",
    "openai",
]  # not in the development environment
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Bools", "Floats", "Typed")}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False

html_theme = "furo"
html_title = f"MAPoRL {version}"
html_copy_source = False
html_show_sourcelink = False

LONG_NAME = re.compile(r"\w+\.[\w.]+|[A-Z]\w*[a-z]\w*")
TABLE_ROW = re.compile(r"\s*\|.*\|$")
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
MODULES_BLOCK = re.compile(r"^```\{modules\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHER_PROCESS = re.compile(r"_worker$|\.__main__$")


def expand_modules(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a section per module in place of each `{modules}` block of a page."""

    def sections(block: re.Match[str]) -> str:
        return "\n".join(map(section, chain.from_iterable(map(modules_of, block[1].split()))))

    source[0] = MODULES_BLOCK.sub(sections, source[0])


def modules_of(name: str) -> list[str]:
    """The module of that name; for `package.*` the package and all modules in it."""
    if not name.endswith(".*"):
        return [name]
    package = importlib.import_module(name.removesuffix(".*"))
    inside = walk_packages(package.__path__, package.__name__ + ".")
    own = [found.name for found in inside if not OTHER_PROCESS.search(found.name)]
    return [package.__name__, *sorted(own)]


def section(name: str) -> str:
    """A heading, the rule sheet where the docstring is one, and what the docstrings say."""
    source = Path(str(find_spec(name).origin)).read_text(encoding="utf-8")
    sheet = ast.get_docstring(ast.parse(source)) or ""
    shown = re.sub("^#", "###", sheet, flags=re.M) if sheet.startswith("# ") else ""
    bases = "   :show-inheritance:\n" if ".config" in name else ""  # settings inherit fields
    return f"## {name}\n\n{shown}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{bases}```\n"


def from_markdown(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Give tables and indented code of a docstring the form that Sphinx reads."""
    if what == "module" and lines and lines[0].startswith("# "):
        lines.clear()  # shown by `section`
    if what in ("attribute", "property", "data") and lines and lines[0] != "..":
        lines[:0] = ["..", ""]  # else napoleon reads "Paper: 300" as a type and a meaning
    lines[:] = tables_as_lists(marked_code(lines))


def marked_code(lines: list[str]) -> list[str]:
    """Put `::` before each block that stands deeper than the text above it, after a gap."""
    marked: list[str] = []
    text, inside = "", False  # the last line that is no code; whether this line is code
    for line in lines:
        inside = inside and (not line.strip() or indent(line) > indent(text))
        if line.strip() and not inside:
            after_gap = bool(marked) and not marked[-1].strip()
            inside = after_gap and bool(text) and indent(line) > indent(text)
            if inside and not text.endswith("::"):
                marked += [" " * indent(text) + "::", ""]
            else:
                text = line
        marked.append(line)
    return marked


def tables_as_lists(lines: list[str]) -> list[str]:
    """Write each Markdown table as a `list-table` with one header row."""
    listed: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not TABLE_ROW.match(line):
            listed.append(line)
            continue
        margin = " " * indent(line)
        if not TABLE_ROW.match(before):
            listed += [margin + ".. list-table::", margin + "   :header-rows: 1", ""]
        if set(line) - set("|-: "):
            cells = line.strip().strip("|").split("|")
            bullets = ["* -"] + ["  -"] * (len(cells) - 1)
            listed += [f"{margin}   {b} {c.strip()}" for b, c in zip(bullets, cells, strict=True)]
    return listed


def indent(line: str) -> int:
    """The number of spaces that a line begins with."""
    return len(line) - len(line.lstrip())


def name_aliases(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str | None, str | None]:
    """Write `ArrayLike | None` for what autodoc makes of an alias in a union."""
    shown = [text and ALIAS.sub(r"\1", text) for text in (signature, returned)]
    return shown[0], shown[1]


def is_offered_by_package(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out of a module's section what its package offers: it is documented there."""
    module = app.env.ref_context.get("py:module") or ""
    package = module.rpartition(".")[0]
    if what != "module" or "." not in package:
        return None
    home = importlib.import_module(package)
    return name in getattr(home, "__all__", ()) or None


def link_by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Link `tasks.load_task` or `DebateConfig` from anywhere, if only one object ends with it."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not LONG_NAME.fullmatch(target):
        return None
    found = objects_by_last_name(env).get(target.rpartition(".")[2], [])
    found = [name for name in found if name.endswith("." + target)]
    if len(found) != 1:
        return None
    entry = env.domains.python_domain.objects[found[0]]
    address = app.builder.get_relative_uri(node["refdoc"], entry.docname) + "#" + entry.node_id
    return nodes.reference("", "", content, internal=True, refuri=address, reftitle=found[0])


@lru_cache(maxsize=1)
def objects_by_last_name(env: BuildEnvironment) -> dict[str, list[str]]:
    """The full names of all documented objects, by their last part."""
    names: dict[str, list[str]] = {}
    for name, entry in env.domains.python_domain.objects.items():
        if not entry.aliased:
            names.setdefault(name.rpartition(".")[2], []).append(name)
    return names


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", expand_modules)
    app.connect("autodoc-process-docstring", from_markdown, priority=100)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("autodoc-skip-member", is_offered_by_package)
    app.connect("missing-reference", link_by_last_name)
