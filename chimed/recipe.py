"""The build recipe: YAML in, a typed and closed `Recipe` out; every fault is reported at once."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chimed.errors import RecipeError, SourceError
from chimed.records import Body, Dialogue, Fact, Split
from chimed.sources import discover, load
from chimed.sources.spec import (
    STAGES,
    Parse,
    Row,
    Source,
    Stage,
    conversation,
    dialogue,
    exam,
    first,
    need,
    passage,
    preference,
)

Share = Annotated[float, Field(gt=0, le=1)]
Shape = Literal["passage", "fact", "dialogue", "exam", "preference"]
_ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceEntry(_Closed):
    """One source of a recipe; the order of entries is their rank: the copy of an earlier one stays.

    name: a built-in source, or the folder below RAW of one that is described here by `files`, `shape` and `columns`.
    file: a Python file with SOURCE = Source(...), relative to the recipe.
    skip: globs of its files to leave out.
    share, cap: how much of its rows a stage takes, chosen by a hash of the row's id.
    license: of one that is described here, as an SPDX name where it has one; "" says that it is not known.
    stages: where its rows may go. splits: upstream split -> the split it counts as here.
    """

    name: str = ""
    file: str = ""
    files: dict[str, Split] = {}
    shape: Shape | None = None
    columns: dict[str, str] = {}
    text: Literal["lines", "paragraphs", "file"] = "lines"
    license: str = ""
    skip: tuple[str, ...] = ()
    share: Share = 1.0
    cap: Annotated[int, Field(gt=0)] | None = None
    stages: tuple[Stage, ...] | None = None
    splits: dict[Split, Split] = {}
    max_rejects: Annotated[float, Field(ge=0, le=1)] | None = None


class Recipe(_Closed):
    """What a build does. See `chimed/chimed.yaml` for the default and the reason of each value.

    near: Jaccard similarity of distinct character 5-grams at or above which two rows are one.
    repeats: "drop" leaves one row of those that are one, "keep" all of them, to measure what leaving them out is worth.
    validation: share of the duplicate clusters of the training rows held out for validation.
    rag_length: longest passage of the rag stage, in characters.
    length_balance: leave out preference pairs until the median length of chosen to rejected replies is near 1.
    script: "simplified" turns traditional characters into simplified ones, "as-is" leaves them.
    tokenizer: what the cards count tokens with: a tokenizer.json, relative to the recipe, or the name of one on the
        Hub, ORG/NAME or ORG/NAME@REVISION; "" counts none.
    """

    seed: int = 42
    near: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    repeats: Literal["drop", "keep"] = "drop"
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    rag_length: Annotated[int, Field(ge=64, le=8192)] = 512
    script: Literal["simplified", "as-is"] = "simplified"
    length_balance: bool = True
    tokenizer: str = ""
    sources: tuple[SourceEntry, ...]


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A source as the recipe wants it."""

    source: Source
    rank: int
    share: float
    cap: int | None
    splits: dict[Split, Split]
    code: str  # sha256 of what defines the source outside this package


@dataclass(frozen=True, slots=True)
class Loaded:
    """A recipe whose sources are found. tokenizer: the file that it names; None for one on the Hub, or none at all."""

    recipe: Recipe
    ingredients: tuple[Ingredient, ...]
    tokenizer: Path | None = None

    @property
    def digest(self) -> str:
        """sha256 of the recipe and of the user's own source files and tokenizer."""
        codes = [item.code for item in self.ingredients]
        if self.tokenizer:
            codes.append(hashlib.sha256(self.tokenizer.read_bytes()).hexdigest())
        text = json.dumps([self.recipe.model_dump(mode="json"), codes], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: Path | None = None) -> Loaded:
    """The recipe at a path, or the default one. Raises RecipeError with every fault in it."""
    if path is None:
        where, text, folder = "the default recipe", package_files("chimed").joinpath("chimed.yaml").read_text(), Path()
    else:
        where, text, folder = str(path), _read(path), path.parent
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(where, [f"not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(data, dict):
        raise RecipeError(where, [f"found {type(data).__name__}; a recipe is a mapping such as `sources: [cmexam]`"])
    if isinstance(data.get("sources"), list):
        data["sources"] = [{"name": item} if isinstance(item, str) else item for item in data["sources"]]
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(where, [_fault(fault) for fault in error.errors()]) from error
    faults: list[str] = []
    tokenizer = _tokenizer(recipe.tokenizer, folder, faults)
    ingredients = tuple(_ingredients(recipe, folder, faults))
    if not recipe.sources:
        faults.append(f"sources: found none; allowed are {', '.join(discover())}, or your own files")
    if faults:
        raise RecipeError(where, faults)
    return Loaded(recipe, ingredients, tokenizer)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [f"cannot be read as UTF-8 text: {error}"]) from error


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fault(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        word = str(error["loc"][-1])
        model = SourceEntry if error["loc"][0] == "sources" else Recipe
        known = list(model.model_fields)
        return f"{where}: unknown key{_hint(word, known) or '; allowed are ' + ', '.join(known)}"
    found = "" if error["type"] == "missing" else f", found {error['input']!r}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}{found}"


def _tokenizer(name: str, folder: Path, faults: list[str]) -> Path | None:
    """The file of a tokenizer, None for one on the Hub."""
    if name.endswith(".json"):
        if not (folder / name).is_file():
            faults.append(f"tokenizer: no such file {folder / name}; it stands relative to the recipe")
        return folder / name
    if name and not _ON_THE_HUB.fullmatch(name):
        faults.append(
            f"tokenizer: found {name!r}; allowed are a tokenizer.json and a name on the Hub, ORG/NAME@REVISION"
        )
    return None


def _ingredients(recipe: Recipe, folder: Path, faults: list[str]) -> Iterator[Ingredient]:
    names: set[str] = set()
    for rank, entry in enumerate(recipe.sources):
        where = f"sources.{rank}"
        try:
            source, code = _resolve(entry, folder)
        except (SourceError, ValueError) as error:
            faults.append(f"{where}: {error}")
            continue
        if source.name in names:
            faults.append(f"{where}: source {source.name!r} stands in the recipe twice; list it once")
        names.add(source.name)
        if entry.stages is not None:
            source = replace(source, stages=entry.stages)
        if entry.max_rejects is not None:
            source = replace(source, max_rejects=entry.max_rejects)
        yield Ingredient(source, rank, entry.share, entry.cap, dict(entry.splits), code)


def _resolve(entry: SourceEntry, folder: Path) -> tuple[Source, str]:
    if entry.file:
        path = folder / entry.file
        return load(path), hashlib.sha256(path.read_bytes()).hexdigest()
    if entry.shape:
        if not entry.name or not entry.files:
            raise ValueError("your own files need `name` (their folder below the raw folder) and `files` {glob: split}")
        return _described(entry), ""
    if entry.columns or entry.files or entry.license:
        raise ValueError(f"`files`, `columns` and `license` need a `shape`: {', '.join(_COLUMNS)}")
    known = discover()
    if entry.name not in known:
        hint = _hint(entry.name, known) or f"; known are {', '.join(known)}"
        raise ValueError(f"unknown source {entry.name!r}{hint}")
    return known[entry.name], ""


# Shape -> (the parser made from column names, columns it needs, columns it may have).
_COLUMNS: dict[str, tuple[Callable[..., Parse], tuple[str, ...], tuple[str, ...]]] = {}


def _messages(messages: str = "", department: str = "", **pair: str) -> Parse:
    if not messages:
        return dialogue(department=department, **pair)

    def parse(row: Row) -> Iterable[Body]:
        value = row.get(messages)
        turns = value if isinstance(value, list) else []
        pairs = ((str(t.get("role") or t.get("from")), str(t.get("content") or t.get("value") or "")) for t in turns)
        return (Dialogue(conversation(pairs), first(row, department) if department else ""),)

    return parse


def _facts(head: str, relation: str, tail: str, head_type: str = "", tail_type: str = "") -> Parse:
    def parse(row: Row) -> Iterable[Body]:
        types = (first(row, column) if column else "" for column in (head_type, tail_type))
        return (Fact(need(row, head), need(row, relation), need(row, tail), *types),)

    return parse


_COLUMNS.update(
    passage=(passage, ("text",), ("title",)),
    fact=(_facts, ("head", "relation", "tail"), ("head_type", "tail_type")),
    dialogue=(_messages, ("question", "answer"), ("messages", "context", "department")),
    exam=(exam, ("question", "options", "answer"), ("explanation", "department", "discipline", "difficulty")),
    preference=(preference, ("question", "chosen", "rejected"), ()),
)


def _described(entry: SourceEntry) -> Source:
    shape = str(entry.shape)
    make, required, optional = _COLUMNS[shape]
    unknown = [name for name in entry.columns if name not in (*required, *optional)]
    missing = [] if "messages" in entry.columns else [name for name in required if name not in entry.columns]
    if shape == "passage" and not entry.columns:
        missing = []  # plain text has the column `text` already
    if unknown or missing:
        found = ", ".join(entry.columns) or "none"
        allowed = f"a {shape} needs {', '.join(required)} and may have {', '.join(optional) or 'no more'}"
        raise ValueError(f"columns: {allowed}; found {found}")
    by_shape: dict[str, tuple[Stage, ...]] = {
        "passage": ("cpt", "rag"),
        "fact": ("cpt", "sft", "rag"),
        "dialogue": ("sft",),
        "exam": ("cpt", "sft", "rag"),
        "preference": ("dpo",),
    }
    return Source(
        name=entry.name,
        title=entry.name,
        homepage="",
        license=entry.license.strip() or "unknown",
        files=entry.files,
        parse=make(**entry.columns),
        shapes=(shape,),
        stages=by_shape[shape],
        text=entry.text,
    )


__all__ = ["STAGES", "Ingredient", "Loaded", "Recipe", "SourceEntry", "load_recipe"]
