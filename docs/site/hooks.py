"""Hooks of mkdocs: files of the repository that a page links to become pages, so that every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import commands  # of this folder
from mkdocs.structure.files import File, Files, InclusionLevel
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
COMMANDS = "commands.md"
SOURCE = "source"  # the site's folder for files of the repository
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml", "": "text"}
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def on_config(config: Any) -> Any:
    """Anchors as GitHub makes them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the page of commands, and the files that the pages link to, and those that these link to."""
    files.append(File.generated(config, COMMANDS, content=commands.page()))
    texts = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    added = set[str]()
    while texts:
        path, text = texts.pop()
        for link in LINK.finditer(text):
            target = _target(path, link[2])
            if target.startswith("docs/") or target in added or not (ROOT / target).exists():
                continue
            added.add(target)
            content = _page(target)
            files.append(File.generated(config, _uri(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
            texts.append((target, content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository lead to their pages."""
    uri = page.file.src_uri
    path = uri.removeprefix(f"{SOURCE}/").removesuffix(".md" if _made(uri) else "") if _made(uri) else f"docs/{uri}"
    if _made(uri) and not (ROOT / path).exists():
        path += ".md"

    def led(link: re.Match[str]) -> str:
        target = _target(path, link[2])
        if not (ROOT / target).exists():
            return link[0]  # mkdocs warns
        return f"{link[1]}{os.path.relpath(_uri(target), PurePosixPath(uri).parent)}{link[3]}"

    return LINK.sub(led, markdown)


def _made(uri: str) -> bool:
    return uri.startswith(f"{SOURCE}/")


def _target(path: str, link: str) -> str:
    """What a link of that file of the repository leads to: a path in the repository."""
    return os.path.normpath(PurePosixPath(path).parent / link)


def _uri(target: str) -> str:
    """The page of a path in the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"{SOURCE}/{target.removesuffix('.md')}.md"


def _page(target: str) -> str:
    path = ROOT / target
    if path.is_dir():
        inside = sorted(each.name for each in path.iterdir() if each.suffix in {*LANGUAGES, ".md", ".ipynb"} - {""})
        return f"# {target}\n\n" + "".join(f"- [{name}]({PurePosixPath(target).name}/{name})\n" for name in inside)
    if path.suffix == ".ipynb":
        return _notebook(json.loads(path.read_text()))
    text = path.read_text()
    if path.suffix == ".md":
        return text
    return f"# {target}\n\n````` {LANGUAGES.get(path.suffix, 'text')}\n{text}\n`````\n"


def _notebook(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: its texts, its code, and what it printed and drew."""
    parts = list[str]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"````` python\n{source}\n`````")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">')
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"````` text\n{text.rstrip()}\n`````")
    return "\n\n".join(parts) + "\n"
