"""The public sources of ChiMed, one module each, found by scanning this package for a module-level `SOURCE`."""

import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path

from chimed.errors import SourceError
from chimed.sources.spec import Source

SAMPLE = Path(__file__).parent / "sample"


@cache
def discover() -> dict[str, Source]:
    """Every built-in source by name; an import error in one of them propagates."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    found = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return {source.name: source for source in sorted(found, key=lambda source: source.name)}


def load(path: Path) -> Source:
    """The `SOURCE` of a user's own source file, named in the recipe. Raises SourceError when there is none."""
    spec = importlib.util.spec_from_file_location(f"chimed_source_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SourceError(f"{path}: no such source file; name a Python file that holds SOURCE = Source(...)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = getattr(module, "SOURCE", None)
    if not isinstance(source, Source):
        raise SourceError(f"{path}: found no SOURCE = Source(...) at module level; see CONTRIBUTING.md")
    return source
