"""What watches a run: the guard, the signals, the journal and the progress, each fed the events by hand."""

import json
import math
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qilin.errors import RunError
from qilin.watch import Guard, Interrupted, Journal, Progress, Signals, diagnosis


def state(history: list[dict[str, Any]], **more: Any) -> Any:
    made = {"global_step": len(history), "max_steps": 10, "num_input_tokens_seen": 0, "log_history": history}
    return SimpleNamespace(**made | {"is_world_process_zero": True, "is_local_process_zero": True} | more)


ARGS = SimpleNamespace(fp16=False, output_dir="runs/x", world_size=1)


def control() -> Any:
    names = ("should_log", "should_save", "should_evaluate", "should_training_stop")
    return SimpleNamespace(**dict.fromkeys(names, False))


def history(*losses: float) -> list[dict[str, Any]]:
    return [{"loss": loss, "step": step, "learning_rate": 1e-3} for step, loss in enumerate(losses, 1)]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_a_diagnosis(loss: float) -> None:
    rows = history(3.2, 3.1, loss)
    rows[-1]["grad_norm"] = 120.0
    with pytest.raises(RunError) as caught:
        Guard().on_log(ARGS, state(rows), control(), rows[-1])
    said = str(caught.value)
    assert f"runs/x: step 3: the loss is {loss}; it was 3.1 at step 2" in said
    assert "Learning rate 0.001, gradient norm 120" in said
    assert "trainer.learning_rate 0.0001" in said


def test_an_exploding_loss_stops_and_one_spike_does_not() -> None:
    calm = [2.0, 2.1, 1.9, 2.0, 2.0]
    for rows in (history(*calm, 30.0), history(*calm, 30.0, 2.0, 30.0), history(9.0, 8.0, 30.0)):
        Guard().on_log(ARGS, state(rows), control(), rows[-1])
    rows = history(*calm, 12.0, 40.0, 90.0)
    with pytest.raises(RunError, match=r"the loss exploded to 90, 3 logs in a row; before, it was about 2\."):
        Guard().on_log(ARGS, state(rows), control(), rows[-1])


def test_an_infinite_gradient_stops_unless_a_loss_scale_is_searched() -> None:
    rows = history(2.0, 2.0)
    rows[-1]["grad_norm"] = math.inf
    assert "the gradient norm is inf at a loss of 2" in diagnosis(rows[-1], rows[:-1])
    assert diagnosis(rows[-1], rows[:-1], scaled=True) == ""


@given(st.lists(st.floats(0.01, 12), min_size=1, max_size=40).map(lambda losses: sorted(losses, reverse=True)))
def test_a_falling_loss_never_stops(losses: list[float]) -> None:
    rows = history(*losses)
    for end in range(1, len(rows) + 1):
        assert diagnosis(rows[end - 1], rows[: end - 1]) == ""


def test_nothing_is_saved_that_the_guard_has_not_seen() -> None:
    asked = control()
    Guard().on_step_end(ARGS, state([]), asked)
    assert not asked.should_log
    asked.should_save = True
    Guard().on_step_end(ARGS, state([]), asked)
    assert asked.should_log


def test_a_signal_in_a_step_saves_at_its_end_and_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        signals.on_train_begin(ARGS, state([]), control())
        asked = control()
        signals.on_step_end(ARGS, state([]), asked)
        assert not asked.should_save
        os.kill(os.getpid(), signal.SIGTERM)  # in the middle of a step: nothing is raised
        asked.should_evaluate = True
        signals.on_step_end(ARGS, state([]), asked)
        assert (asked.should_save, asked.should_training_stop, asked.should_evaluate) == (True, True, False)
        asked.should_save = asked.should_evaluate = True  # what the end of an epoch would ask for
        signals.on_epoch_end(ARGS, state([]), asked)
        assert (asked.should_save, asked.should_evaluate) == (False, False)
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)  # the second one does not wait
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_in_the_evaluation_before_the_first_step_does_not_wait_for_its_end() -> None:
    with Signals() as signals:
        signals.on_train_begin(ARGS, state([]), control())
        signals.on_prediction_step(ARGS, state([]), control())
        os.kill(os.getpid(), signal.SIGTERM)
        signals.on_prediction_step(ARGS, state([], global_step=3), control())  # later ones do: there is work to save
        with pytest.raises(Interrupted):
            signals.on_prediction_step(ARGS, state([]), control())


def test_a_signal_between_steps_ends_at_once() -> None:
    with Signals() as signals:
        signals.on_train_begin(ARGS, state([]), control())
        signals.on_train_end(ARGS, state([]), control())
        with pytest.raises(Interrupted, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signals_leave_other_threads_alone() -> None:
    found: list[BaseException] = []

    def enter() -> None:
        try:
            with Signals():
                pass
        except ValueError as error:
            found.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not found


def test_the_journal_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"loss": 1, "step": 9}\n')  # logged after the checkpoint, before the kill
    journal, rows = Journal(path), history(3.0, 2.0)
    journal.on_train_begin(ARGS, state(rows), control())
    rows.append({"loss": math.nan, "step": 3, "epoch": 1})
    journal.on_log(ARGS, state(rows), control())
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["loss"] for row in read] == [3.0, 2.0, None]
    assert all(isinstance(value, int | float | None) for row in read for value in row.values())


def test_progress_says_speed_mfu_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 100.0, 104.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    said: list[str] = []
    progress = Progress(flops=1e6, peak=1e9, say=said.append)
    now = state([], max_steps=6)
    progress.on_train_begin(ARGS, now, control())
    now.num_input_tokens_seen, now.global_step = 600, 1
    progress.on_step_end(ARGS, now, control())
    progress.on_evaluate(ARGS, now, control())  # 98 seconds that are no training
    now.num_input_tokens_seen, now.global_step = 1200, 2
    progress.on_step_end(ARGS, now, control())
    progress.on_log(ARGS, now, control(), {"loss": 2.345})
    progress.on_log(ARGS, now, control(), {"eval_general_loss": 3.0, "eval_general_perplexity": 20.1})
    assert progress.speed == 200
    assert said == [
        "step 2/6: loss 2.345, 200 tokens/s, MFU 20.0%, 0:12 left",
        "step 2: general loss 3, perplexity 20.1",
    ]
