"""The folder of a run: one process at a time, no half checkpoint, a full disk in one sentence."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin import run
from qilin.errors import RunError


def checkpoint(folder: Path, step: int) -> Path:
    """A whole checkpoint as transformers leaves it, in miniature."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (made / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(made / name, "w") as archive:
            archive.writestr("data.pkl", b"x" * 500)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return made


def test_a_second_process_is_turned_away_at_once(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from qilin import run\nwith run.hold(Path({str(tmp_path)!r})): print('in')"
    command = [sys.executable, "-c", code]
    with run.hold(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"another process (process {os.getpid()} on " in done.stderr
        assert "trainer.output_dir" in done.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "in\n"


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    said: list[str] = []
    assert run.last_checkpoint(tmp_path, said.append) == tmp_path / "checkpoint-100"
    assert said == []
    assert run.last_checkpoint(tmp_path / "new", said.append) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_checkpoint_cut_in_half_is_put_aside_and_the_one_before_taken(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        cut(checkpoint(tmp_path, 20) / name)
        said: list[str] = []
        assert run.last_checkpoint(tmp_path, said.append) == tmp_path / "checkpoint-10"
        assert (tmp_path / "half-checkpoint-20" / "scheduler.pt").exists()
        assert len(said) == 1
        assert name in said[0]
        assert "half-checkpoint-20" in said[0]


def test_what_a_kill_leaves_out_is_seen(tmp_path: Path) -> None:
    for names, fault in (
        (["trainer_state.json"], "trainer_state.json is missing"),
        (["model.safetensors"], "no weights"),
        (["optimizer.pt"], "no optimizer state"),
    ):
        made = checkpoint(tmp_path / fault, 5)
        for name in names:
            (made / name).unlink()
        assert fault in run.flaw(made)
    made = checkpoint(tmp_path, 5)
    (made / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "w": "model.safetensors"}})
    )
    assert run.flaw(made) == "model-00001-of-00002.safetensors is missing"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999))
def test_no_cut_goes_unseen(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = checkpoint(tmp_path_factory.mktemp("cut"), 7)
    for path in sorted(made.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert run.flaw(made), path.name
        path.write_bytes(whole)
    assert not run.flaw(made)


def test_a_full_disk_is_one_sentence_and_its_half_checkpoint_goes(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    with pytest.raises(RunError, match=r"the disk is full .* goes on from checkpoint-10") as caught, run.room(tmp_path):
        (checkpoint(tmp_path, 20) / "trainer_state.json").unlink()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value.__cause__, OSError)
    assert not (tmp_path / "checkpoint-20").exists()
    assert not run.flaw(tmp_path / "checkpoint-10")


def test_too_little_memory_is_one_sentence_on_what_to_lower(tmp_path: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    with (
        pytest.raises(RunError, match=r"out of memory; lower trainer\.per_device_train_batch_size"),
        run.room(tmp_path),
    ):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def test_other_errors_pass_a_full_disk_by(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), run.room(tmp_path):
        raise ValueError("mine")


def test_differences_name_what_changed_and_leave_out_what_does_no_harm(tmp_path: Path) -> None:
    old = {"recipe": {"trainer": {"learning_rate": 1e-3, "save_steps": 5}, "peft": None}, "data": "a" * 64}
    new = {"recipe": {"trainer": {"learning_rate": 1e-4, "save_steps": 9}, "peft": {"r": 8}}, "data": "b" * 64}
    assert run.differences(old, old | {}) == []
    assert run.differences(old, new) == [
        "data was aaaaaaaaaaaa…, is bbbbbbbbbbbb…",
        "recipe.peft was absent, is {'r': 8}",
        "recipe.trainer.learning_rate was 0.001, is 0.0001",
    ]
    run.check_same(tmp_path, {"identity": old}, old, "a finished run")
    with pytest.raises(RunError, match=r"holds a finished run of something else: .*learning_rate was 0.001"):
        run.check_same(tmp_path, {"identity": old}, new, "a finished run")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    run.write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            run.write_json(path, {"a": 2})
    assert run.read_json(path) == {"a": 1}
    assert run.read_json(tmp_path / "none.json") is None
    path.write_text("{")
    with pytest.raises(RunError, match="not JSON"):
        run.read_json(path)


def test_the_digest_of_weights_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"1")
    one = run.weights_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert run.weights_digest(tmp_path) == one
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    assert run.weights_digest(tmp_path) != one
