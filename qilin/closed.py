"""A recipe file: YAML in, a typed and closed model out; every fault is reported at once."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from qilin.errors import RecipeError


class Closed(BaseModel):
    """A block of a recipe: it takes no key that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Recipe = TypeVar("Recipe", bound=Closed)


def load(path: Path, kind: type[Recipe], together: Callable[[Mapping[Any, Any]], Iterable[str]]) -> Recipe:
    """The recipe in a YAML file. together: faults of values that are right one by one.

    Raises RecipeError with every fault.
    """
    data = _read(path)
    faults = list(together(data))
    try:
        recipe = kind.model_validate(data)
    except ValidationError as error:
        found = [_fault(kind, one) for one in error.errors() if _meant(one)]
        raise RecipeError(str(path), [*found, *faults]) from error
    if faults:
        raise RecipeError(str(path), faults)
    return recipe


def block(data: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """The block of this name; empty where there is none."""
    value = data.get(name)
    return value if isinstance(value, dict) else {}


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key said twice; `2e-4` is a number, `no` and dates are texts, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value != "<<":
                if name.value in seen:
                    where = f"line {name.start_mark.line + 1}"
                    raise yaml.YAMLError(f"the key {name.value!r} stands twice in one mapping, again in {where}")
                seen.add(name.value)
        return super().construct_mapping(node, deep)


_FORM = re.compile(r"constrained-int$|dict\[")  # what pydantic calls the forms that a value may have
_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.removeprefix(_TAG) not in ("bool", "float", "timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$", re.ASCII)
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


def _read(path: Path) -> dict[str, Any]:
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeError(where, [f"cannot be read: {reason}; a recipe is a YAML file"]) from error
    loader = _Loader(text)
    try:
        data = loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(where, [f"not YAML: {' '.join(str(error).split())}"]) from error
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise RecipeError(where, [f"found {type(data).__name__}; a recipe has the keys stage, model, data, trainer"])
    return data


def _meant(error: Mapping[str, Any]) -> bool:
    """Whether a fault is of the form that was meant, where a value may be a number or a mapping of numbers."""
    form = str(error["loc"][-1]) if error["loc"] else ""
    return not _FORM.match(form) or isinstance(error["input"], dict) == form.startswith("dict")


def _fault(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"] if not _FORM.match(str(part)))
    if error["type"] == "extra_forbidden":
        known = list(_inner(kind, error["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{where}: unknown key; " + (f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}")
    if error["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, found {error['input']!r}"


def _inner(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """The block at a place of a recipe."""
    for name in place:
        annotation = kind.model_fields[str(name)].annotation
        [kind] = [part for part in (annotation, *get_args(annotation)) if _is_block(part)]
    return kind


def _is_block(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)
