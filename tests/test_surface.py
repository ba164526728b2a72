"""The public names: what users import. A change here is a change for them, and a line of CHANGELOG.md."""

import inspect
from importlib import import_module

import pytest

SURFACE = {
    "chimed": ["BuildError", "ChimedError", "RecipeError", "RowError", "SourceError"],
    "qilin": ["QilinError", "RecipeError"],
}

# What a user's own source file is written with; see CONTRIBUTING.md.
FOR_SOURCES = {
    "chimed.errors": ["RowError"],
    "chimed.records": ["Dialogue", "Exam", "Fact", "Passage", "Preference", "Turn"],
    "chimed.sources.spec": [
        "Row",
        "Source",
        "conversation",
        "dialogue",
        "exam",
        "first",
        "letters",
        "need",
        "passage",
        "preference",
        "split_options",
    ],
}


@pytest.mark.parametrize("package", SURFACE)
def test_root_names(package: str) -> None:
    assert import_module(package).__all__ == SURFACE[package]


@pytest.mark.parametrize("module", [*SURFACE, *FOR_SOURCES])
def test_public_names_say_what_they_give(module: str) -> None:
    for name in {**SURFACE, **FOR_SOURCES}[module]:
        thing = getattr(import_module(module), name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{module}.{name} has no docstring"
