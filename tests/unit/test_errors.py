"""The error trees: what the command line may catch, and what a message says."""

import inspect
import pickle
from types import ModuleType

import pytest

import chimed.errors
import qilin.errors
from chimed.errors import BuildError, ChimedError, RecipeError, RowError, SourceError


@pytest.mark.parametrize(("module", "root"), [(chimed.errors, ChimedError), (qilin.errors, qilin.errors.QilinError)])
def test_every_error_has_one_root_and_is_drawn(module: ModuleType, root: type[Exception]) -> None:
    found = {name: cls for name, cls in inspect.getmembers(module, inspect.isclass) if issubclass(cls, Exception)}
    assert all(issubclass(cls, root) for cls in found.values())
    assert all(name in str(module.__doc__) for name in found), "the tree in the module's docstring draws every error"


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (RecipeError, ValueError),
        (SourceError, ValueError),
        (RowError, ValueError),
        (BuildError, RuntimeError),
        (qilin.errors.RecipeError, ValueError),
    ],
)
def test_errors_are_standard_ones_too(error: type[Exception], standard: type[Exception]) -> None:
    assert issubclass(error, standard)


@pytest.mark.parametrize("error", [RecipeError, qilin.errors.RecipeError])
def test_a_recipe_error_says_every_fault_on_its_own_line(error: type[RecipeError]) -> None:
    raised = error("a.yaml", ["near: above 1", "seeds: unknown key; did you mean 'seed'?"])
    assert raised.faults == ("near: above 1", "seeds: unknown key; did you mean 'seed'?")
    assert str(raised).splitlines() == ["a.yaml: near: above 1", "a.yaml: seeds: unknown key; did you mean 'seed'?"]


def test_a_row_error_carries_its_reason() -> None:
    assert str(RowError("no-answer", "found '无'")) == "no-answer: found '无'"
    assert str(RowError("no-answer")) == "no-answer"
    assert RowError("no-answer", "found '无'").reason == "no-answer"


def test_errors_survive_the_way_back_from_a_worker() -> None:
    for raised in (RecipeError("a.yaml", ["near: above 1"]), RowError("no-answer", "found '无'")):
        again = pickle.loads(pickle.dumps(raised))
        assert (type(again), str(again), vars(again)) == (type(raised), str(raised), vars(raised))
