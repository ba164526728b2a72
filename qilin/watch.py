"""What watches a run: progress on the terminal, numbers in a file, a guard over the loss, and signals.

Each watcher is a plain class with methods named after the events of `transformers.TrainerCallback`; `callback` makes
one of it, so that this module needs neither transformers nor torch to be imported.
"""

import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from qilin.errors import RunError

CALM = 20  # logs that the guard looks back on
TRIES = 3  # logs in a row above the limit that are an explosion, not a spike


def callback(watcher: object) -> Any:
    """The watcher as a `TrainerCallback`: it hears the events that it has a method for.

    >>> class Count:
    ...     steps = 0
    ...     def on_step_end(self, args, state, control, **_):
    ...         self.steps += 1
    """
    from transformers import TrainerCallback

    heard = {name: staticmethod(getattr(watcher, name)) for name in dir(watcher) if name.startswith("on_")}
    return type(type(watcher).__name__, (TrainerCallback,), heard)()


class Guard:
    """Stops a run whose loss is no number or has exploded, before such weights are saved.

    Whatever is saved was logged first, so a checkpoint never holds weights whose loss the guard has not seen.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        if "loss" not in logs:
            return
        past = [row for row in state.log_history[:-1] if "loss" in row]
        what = diagnosis(logs, past, scaled=args.fp16)
        if what:
            raise RunError(f"{args.output_dir}: step {state.global_step}: {what}. {_advice(logs, state)}")


def diagnosis(logs: Mapping[str, Any], past: Sequence[Mapping[str, Any]], *, scaled: bool = False) -> str:
    """What is wrong with the newest log of a run, given those before it; nothing when all is well.

    scaled: gradients carry fp16's loss scale, whose search for a good scale meets infinite gradients that do no harm.

    >>> diagnosis({"loss": float("nan"), "grad_norm": 2.0}, [{"loss": 3.1, "step": 10}])
    'the loss is nan; it was 3.1 at step 10'
    >>> diagnosis({"loss": 9.5}, [{"loss": 2.0, "step": n} for n in range(9)])  # one spike
    ''
    """
    loss, norm = float(logs["loss"]), logs.get("grad_norm")
    calm = [row for row in past if math.isfinite(float(row["loss"]))]
    before = f"; it was {float(calm[-1]['loss']):.4g} at step {calm[-1]['step']}" if calm else ""
    if not math.isfinite(loss):
        return f"the loss is {loss}{before}"
    if norm is not None and not math.isfinite(float(norm)) and not scaled:
        return f"the gradient norm is {float(norm)} at a loss of {loss:.4g}{before}"
    losses = [*(float(row["loss"]) for row in calm), loss]
    usual = losses[-CALM - TRIES : -TRIES]
    if len(usual) < TRIES or min(losses[-TRIES:]) <= 3 * statistics.median(usual) + 1:
        return ""
    return (
        f"the loss exploded to {loss:.4g}, {TRIES} logs in a row; before, it was about {statistics.median(usual):.4g}"
    )


def _advice(logs: Mapping[str, Any], state: Any) -> str:
    rate, norm = logs.get("learning_rate"), logs.get("grad_norm")
    seen = f"Learning rate {rate:.3g}" if rate is not None else "Learning rate unknown"
    seen += f", gradient norm {float(norm):.3g}" if norm is not None else ""
    lower = f"trainer.learning_rate {rate / 10:.1g}" if rate else "a lower trainer.learning_rate"
    return (
        f"{seen}. Try {lower}, more trainer.warmup_steps, a lower trainer.max_grad_norm, or bf16 in place of fp16, "
        f"in a new trainer.output_dir; no weights of this step were saved"
    )


class Signals:
    """Lets a run end in order: SIGTERM or Ctrl-C lets the step finish, saves and stops; a second ends it.

    A context manager around the whole run. While no step runs, there is nothing to save and it stops at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self.stopping = False  # agreed on by all processes
        self._training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        import threading

        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        again, self.received = bool(self.received), number
        if again or not self._training:
            raise Interrupted(number)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stopping = self._anyone(args)
        if self.stopping:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.received and not state.global_step:  # the evaluation before the first step
            raise Interrupted(self.received)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.stopping:  # it was saved at the end of its step
            control.should_save = control.should_evaluate = False

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._training = False

    def _anyone(self, args: Any) -> bool:
        """Whether any process heard a signal: all must stop after the same step, or the others wait for ever."""
        if args.world_size > 1:
            import torch
            from torch import distributed

            heard = torch.tensor(self.received, device=args.device)
            distributed.all_reduce(heard, op=distributed.ReduceOp.MAX)
            return bool(heard.item())
        return bool(self.received)


class Interrupted(BaseException):
    """A signal that came while no step ran. No ordinary error: nothing between here and the run may swallow it."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


class Journal:
    """Writes each log of a run as one line of JSON; a run that goes on starts from the lines of its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.path.write_text("".join(_line(row) for row in state.log_history), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(state.log_history[-1]))


def _line(row: Mapping[str, Any]) -> str:
    numbers = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(numbers, sort_keys=True) + "\n"


class Progress:
    """Shows how far a run is: step, loss, tokens a second, MFU where the device's peak is known, and the time left.

    flops: floating-point operations a trained token costs. peak: what the devices of the run can do in a second, or 0.
    On a terminal it is a bar; elsewhere a line a log. Time for evaluation and saving does not count as training time.
    """

    def __init__(self, flops: float = 0.0, peak: float = 0.0, say: Callable[[str], None] | None = None) -> None:
        self.flops, self.peak = flops, peak
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self.seconds = 0.0  # of steps, in this session
        self.tokens = self.steps = 0
        self._mark = 0.0
        self._first = 0
        self._bar: Any = None
        self._task: Any = None

    @property
    def speed(self) -> float:
        """Tokens a second over the steps of this session."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation, or None where the peak is not known."""
        return self.speed * self.flops / self.peak if self.peak and self.flops else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first = state.num_input_tokens_seen
        self._mark = time.perf_counter()
        if not state.is_local_process_zero:
            self.say = lambda _: None
        elif sys.stderr.isatty():
            self._bar, self._task = _bar(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._mark = time.perf_counter()

    on_save = on_evaluate

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.perf_counter()
        self.seconds, self._mark = self.seconds + now - self._mark, now
        self.tokens, self.steps = int(state.num_input_tokens_seen - self._first), self.steps + 1
        if self._bar:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        held = [key.removeprefix("eval_").removesuffix("_loss") for key in logs if _is_held_out(key)]
        if "loss" in logs:
            text = self._status(state, logs)
            self._bar.update(self._task, description=text) if self._bar else self.say(text)
        for name in held:
            self._tell(f"step {state.global_step}: {name} {told(logs, f'eval_{name}_')}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _status(self, state: Any, logs: Mapping[str, Any]) -> str:
        left = (state.max_steps - state.global_step) * self.seconds / max(self.steps, 1)
        mfu = f", MFU {self.mfu:.1%}" if self.mfu is not None else ""
        speed = f"{self.speed:,.0f} tokens/s{mfu}, {clock(left)} left"
        return f"step {state.global_step}/{state.max_steps}: {told(logs)}, {speed}"

    def _tell(self, text: str) -> None:
        self._bar.console.print(text) if self._bar else self.say(text)


def _is_held_out(key: str) -> bool:
    return key.startswith("eval_") and key.endswith("_loss")


def told(logs: Mapping[str, Any], prefix: str = "") -> str:
    """The numbers of a log that a reader wants first.

    >>> told({"loss": 2.31234, "grad_norm": 0.5, "epoch": 1.0})
    'loss 2.312'
    """
    names = {"loss": "loss", "perplexity": "perplexity", "preferred": "preferred", "rewards/margins": "margin"}
    return ", ".join(f"{word} {logs[prefix + key]:.4g}" for key, word in names.items() if prefix + key in logs)


def clock(seconds: float) -> str:
    """Seconds as a reader says them.

    >>> clock(59), clock(3725), clock(200000)
    ('0:59', '1:02:05', '2 d 7:33')
    """
    whole = round(seconds)
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days} d {hours}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


@contextmanager
def bars() -> Iterator[Callable[[int, int, str], None]]:
    """Progress bars on a terminal, silent anywhere else; what it yields is called with (done, total, name)."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        tasks: dict[str, Any] = {}

        def step(done: int, total: int, name: str) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name)
            shown.update(tasks[name], completed=done, total=total)

        yield step


def _bar(state: Any) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    bar = Bars(BarColumn(bar_width=24), TextColumn("{task.description}"), console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("starting", total=state.max_steps, completed=state.global_step)
