"""Prints a recipe with other values: those of a size, then those named one by one. See recipes/qwen-0.5b/run.sh.

    python recipes/overlay.py recipes/qwen-0.5b/cpt.yaml small model.path=models/other data.replay=null

sizes.yaml beside the recipe says what each size changes in it; a value is YAML, and `null` takes a key away.
"""

import sys
from pathlib import Path
from typing import Any

import yaml


def overlaid(recipe: Any, values: Any) -> Any:
    """The recipe with values laid over it, block by block; a key whose value is None goes.

    >>> overlaid({"data": {"path": "out/cpt", "length": 512}}, {"data": {"rows": 9, "length": None}})
    {'data': {'path': 'out/cpt', 'rows': 9}}
    """
    if not isinstance(values, dict):
        return values
    under = recipe if isinstance(recipe, dict) else {}
    merged = under | {key: overlaid(under.get(key), value) for key, value in values.items()}
    return {key: value for key, value in merged.items() if value is not None}


def main(path: str, size: str, *changes: str) -> None:
    """Print the recipe of a file in a size, with the changes KEY.KEY=VALUE."""
    file = Path(path)
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    sizes = yaml.safe_load(file.with_name("sizes.yaml").read_text(encoding="utf-8"))
    if size not in sizes:
        sys.exit(f"{path}: found the size {size!r}; allowed are {', '.join(sizes)}")
    recipe = overlaid(recipe, (sizes[size] or {}).get(file.stem, {}))
    for change in changes:
        key, is_, text = change.partition("=")
        if not is_:
            sys.exit(f"found {change!r}; a change is KEY.KEY=VALUE")
        value = yaml.safe_load(text)
        for name in reversed(key.split(".")):
            value = {name: value}
        recipe = overlaid(recipe, value)
    yaml.safe_dump(recipe, sys.stdout, allow_unicode=True, sort_keys=False)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
