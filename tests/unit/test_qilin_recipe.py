"""The training recipe: closed, checked against the installed TRL and PEFT, every fault at once."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin import options
from qilin.errors import RecipeError
from qilin.recipe import Recipe, load_recipe

pytestmark = pytest.mark.skipif(not find_spec("trl") or not find_spec("peft"), reason="needs chimed[train]")
ROOT = Path(__file__).resolve().parents[2]

GOOD = """
stage: sft
model: {path: models/base, dtype: float32, template: chatml}
data: {path: out/sft, length: 2048, rows: 20000}
peft: {r: 8, lora_alpha: 16, target_modules: all-linear}
trainer:
  output_dir: runs/sft
  learning_rate: 2e-4
  eval_strategy: no
  seed: 7
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, **changes: Any) -> tuple[str, ...]:
    """The faults of the good recipe with other blocks, or keys added to its trainer, model, data or peft."""
    data = yaml.safe_load(GOOD)
    data["trainer"] |= {"learning_rate": 2e-4, "eval_strategy": "no"}
    for block, value in changes.items():
        data[block] = data[block] | value if isinstance(value, dict) else value
    try:
        load_recipe(written(folder, yaml.safe_dump(data)))
    except RecipeError as error:
        return error.faults
    return ()


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.stage, recipe.model.template, recipe.data.length) == ("sft", "chatml", 2048)
    assert recipe.trainer["learning_rate"] == 2e-4, "YAML 1.1 would read a text"
    assert recipe.trainer["eval_strategy"] == "no", "YAML 1.1 would read false"
    assert (recipe.output_dir, recipe.seed) == (Path("runs/sft"), 7)
    assert recipe.option("num_train_epochs") == 3.0


def test_the_digest_is_of_what_is_said_not_how(tmp_path: Path) -> None:
    one = load_recipe(written(tmp_path, GOOD))
    other = load_recipe(
        written(tmp_path, GOOD.replace("2e-4", "0.0002").replace("  seed: 7\n", "  seed: 0x7 # same\n"))
    )
    assert one.digest == other.digest
    assert one.digest != load_recipe(written(tmp_path, GOOD.replace("seed: 7", "seed: 8"))).digest


def test_every_fault_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        model={"dtype": "bf16", "templat": "chatml"},
        data={"length": 3, "replay": {"path": "x", "share": 2, "shre": 1}},
        peft={"lora_alpa": 3},
        trainer={"evaluation_strategy": "no", "leaning_rate": 1, "beta": 0.1, "packing": True, "weight_decay": "high"},
        extra=1,
    )
    for start in (
        "model.dtype: input should be 'float32', 'bfloat16' or 'float16', found 'bf16'",
        "model.templat: unknown key; did you mean 'template'?",
        "data.length: input should be greater than or equal to 16, found 3",
        "data.replay.share: input should be less than 1, found 2",
        "data.replay.shre: unknown key; did you mean 'share'?",
        "data.replay: stage sft has none",
        "peft.lora_alpa: unknown key of LoraConfig; did you mean 'lora_alpha'?",
        "trainer.evaluation_strategy is now `eval_strategy`",
        "trainer.leaning_rate: unknown key of SFTConfig; did you mean 'learning_rate'?",
        "trainer.beta: unknown key of SFTConfig; it is a key of DPOConfig",
        "trainer.packing is set by qilin",
        "trainer.weight_decay: found 'high'; allowed is float",
        "extra: unknown key; allowed are stage, model, data, peft, trainer",
    ):
        assert any(fault.startswith(start) for fault in found), start
    assert len(found) == 13


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"trainer": {"fp16": True, "bf16": True}}, "trainer.fp16, trainer.bf16: both are true"),
        ({"trainer": {"use_cpu": True, "bf16": True}}, "trainer.bf16: is true with `use_cpu: true`"),
        ({"trainer": {"use_cpu": True, "use_liger_kernel": True}}, "trainer.use_liger_kernel: is true with"),
        ({"trainer": {"output_dir": ""}}, "trainer.output_dir: is missing"),
        ({"trainer": {"max_steps": "5"}}, "trainer.max_steps: found '5'; allowed is int"),
        ({"trainer": {"bf16": "yes"}}, "trainer.bf16: found 'yes'; allowed is bool or None"),
        ({"trainer": {"loss_type": "sigmoid"}}, "trainer.loss_type: found 'sigmoid'; allowed is nll or dft"),
        ({"trainer": {"eval_strategy": "epochs"}}, "trainer.eval_strategy: found 'epochs'; allowed is no or steps or"),
        ({"trainer": {"eval_strategy": False}}, "trainer.eval_strategy: found False; allowed is no or steps or epoch"),
        ({"trainer": {"optim": "adamw"}}, "trainer.optim: found 'adamw'; did you mean 'adamw_"),
        (
            {"trainer": {"lr_scheduler_type": "cosin"}},
            "trainer.lr_scheduler_type: found 'cosin'; did you mean 'cosine'",
        ),
        ({"trainer": {"trust_remote_code": True}}, "trainer.trust_remote_code is refused"),
        ({"peft": {"target_modules": ["q_proj", "lm_head"]}}, "peft.target_modules: TRL trains no adapter on lm_head"),
        ({"peft": {"target_modules": ".*(proj|head)"}}, "peft.target_modules: TRL trains no adapter on lm_head"),
        ({"peft": {"bias": "some"}}, "peft.bias: found 'some'; allowed is none or all or lora_only"),
        ({"peft": {"task_type": "CAUSAL_LM"}}, "peft.task_type is set by qilin"),
        ({"peft": None, "model": {"quantization": "nf4"}}, "model.quantization: four-bit weights cannot be trained"),
        ({"peft": None, "model": {"dtype": "float16"}}, "model.dtype: float16 weights cannot be trained"),
        ({"stage": "rlhf"}, "stage: input should be 'cpt', 'sft' or 'dpo', found 'rlhf'"),
        ({"trainer": None}, "trainer: input should be a valid dictionary, found None"),
    ],
)
def test_one_fault(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    found = faults(tmp_path, **changes)
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "changes",
    [
        {"peft": {"target_modules": ".*proj"}},
        {"peft": {"target_modules": "all-linear", "modules_to_save": ["lm_head"], "init_lora_weights": "pissa"}},
        {"peft": {"target_modules": ".*", "exclude_modules": ["lm_head"]}},
        {"trainer": {"warmup_steps": 0.05, "logging_steps": 1, "report_to": ["tensorboard"], "bf16": None}},
        {"stage": "dpo", "trainer": {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.2]}},
        {"stage": "dpo", "trainer": {"ld_alpha": 0.5, "precompute_ref_log_probs": True}},
        {"stage": "cpt", "data": {"replay": {"path": "out-general/cpt", "share": 0.15}}},
        {"peft": None, "trainer": {"fsdp_config": {"version": 2}}},
    ],
)
def test_no_fault(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert faults(tmp_path, **changes) == ()


def test_a_key_of_another_stage_is_named(tmp_path: Path) -> None:
    found = faults(
        tmp_path, stage="dpo", trainer={"dataset_text_field": "text", "activation_offloading": False, "r": 8}
    )
    assert [fault.split(";")[0] for fault in found] == [
        "trainer.dataset_text_field is set by qilin: chimed's stages have fixed columns",
        "trainer.r: unknown key of DPOConfig",
    ]
    assert found[1].endswith("it is a key of LoraConfig")


@pytest.mark.parametrize("key", [key for key in options.RENAMED if key not in ("dtype", "processing_class")])
def test_renamed_keys_are_gone_indeed(key: str) -> None:
    assert not any(key in options.read(config) for config in ("SFTConfig", "DPOConfig"))


@pytest.mark.parametrize("advice", sorted(set(options.RENAMED.values())))
def test_their_new_names_are_there(advice: str) -> None:
    if not advice.startswith("is now") or "model.dtype" in advice:
        return
    known = options.read("SFTConfig") | options.read("DPOConfig")
    named = [text.partition(":")[0] for text in advice.split("`")[1::2]]
    assert named
    assert all(name in known for name in named)


def test_own_keys_are_keys_of_today() -> None:
    known = options.read("SFTConfig") | options.read("DPOConfig")
    assert set(options.OWN["trainer"]) <= set(known)
    assert set(options.OWN["peft"]) <= set(options.read("LoraConfig"))


@pytest.mark.filterwarnings("ignore")
def test_options_are_the_fields_of_the_classes() -> None:
    from dataclasses import MISSING, fields
    from enum import Enum

    from peft import LoraConfig
    from trl import DPOConfig, SFTConfig

    for kind in (SFTConfig, DPOConfig, LoraConfig):
        read = options.read(kind.__name__)
        assert set(read) == {field.name for field in fields(kind)}
        for field in fields(kind):
            if isinstance(field.default, bool | int | float) and field.default is not MISSING:
                assert read[field.name].default == field.default
                assert read[field.name].allows(field.default)
            if isinstance(field.default, Enum):
                assert set(read[field.name].choices) == {member.value for member in type(field.default)}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stage: sft\nstage: cpt\n", "not YAML: the key 'stage' stands twice in one mapping, again in line 2"),
        ("stage: [sft\n", "not YAML: "),
        ("- sft\n", "found list; a recipe has the keys stage, model, data, trainer"),
        ("", "found NoneType; a recipe has the keys"),
        ("a: !!python/object/apply:os.system ['true']\n", "not YAML: could not determine a constructor"),
        ("[" * 5000, "not YAML: "),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(fault)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read: No such file or directory; a recipe is a YAML file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"stage: \xff\xfe")
    with pytest.raises(RecipeError, match="it is not UTF-8 text"):
        load_recipe(tmp_path / "bytes.yaml")


def test_without_trl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options.read.cache_clear()
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"transformers is not installed; run pip install 'chimed\[train\]'"):
        load_recipe(written(tmp_path, GOOD))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["stage", "model", "data", "peft", "trainer", "path", "length", "replay", "output_dir", "bf16"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, st.dictionaries(names | st.text(max_size=5), values, max_size=4) | values, max_size=5))
def test_any_mapping_is_a_recipe_or_its_faults(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    path = written(tmp_path_factory.getbasetemp(), yaml.safe_dump(data, allow_unicode=True))
    try:
        assert isinstance(load_recipe(path), Recipe)
    except RecipeError as error:
        assert error.faults


def test_a_typo_is_found_without_importing_what_is_heavy(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("learning_rate", "leaning_rate"))
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from pathlib import Path; "
        f"from qilin.recipe import load_recipe; load_recipe(Path({str(path)!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    out, said = child.stdout.read().decode(), child.stderr.read().decode()
    child.stdout.close()
    child.stderr.close()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert "did you mean 'learning_rate'?" in said
    loaded = {name.partition(".")[0] for name in out.split()}
    assert not loaded & {"torch", "transformers", "trl", "peft", "datasets", "pyarrow", "numba"}
    assert used.ru_utime + used.ru_stime < 3
