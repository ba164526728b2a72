"""The stages of training, each to be read top to bottom: what TRL's trainer is given, and why.

The recipe's `trainer` block goes word for word to SFTConfig or DPOConfig, its `peft` block to LoraConfig. Rows come
tokenised from `qilin prepare`, so nothing here reads, cuts or drops text.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qilin.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from qilin.prepare import Prepared


def packed(recipe: Recipe, args: "SFTConfig", model: Any, tokenizer: Any, prepared: "Prepared") -> "SFTTrainer":
    """The trainer of continued pre-training and of supervised fine-tuning: the next token of packed rows.

    Passages: each row holds whole documents, each with its end-of-text token; every token but a document's first
    carries loss. Conversations: the rows' labels are -100 but on the assistant's tokens and end-of-turn, as the
    template marks them; TRL's own masking (assistant_only_loss) is off, since the labels are there already.
    The loss of a step is the mean over all its tokens, however they fall into batches, accumulation and processes.
    """
    from trl import SFTTrainer

    class Trainer(HeldOut, SFTTrainer):  # type: ignore[misc]
        pass

    return Trainer(
        model,
        args=args,
        train_dataset=prepared.load("train"),
        eval_dataset=held_out(prepared),
        processing_class=tokenizer,
        peft_config=adapter(recipe),
        data_collator=rows_of(args, tokenizer),
    )


def dpo(recipe: Recipe, args: "DPOConfig", model: Any, tokenizer: Any, prepared: "Prepared") -> "DPOTrainer":
    """The trainer of direct preference optimisation, with the model of the stage before as reference.

    With an adapter the reference is the same model with the adapter off. Without one, its log-probabilities are
    computed once before the first step (`settings` asks for it), while the model still is what its folder holds.
    """
    from datasets.fingerprint import Hasher
    from trl import DPOTrainer

    class Trainer(HeldOut, DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: "Dataset", *_: Any) -> "Dataset":
            return dataset  # tokenised already; TRL has no option that says so

        def _precompute_ref_logps(self, dataset: "Dataset", *rest: Any) -> "Dataset":
            # TRL files them under the data and the model alone, and would take those of another length weight or
            # precision for its own.
            kind = (dataset._fingerprint, args.ld_alpha, args.bf16, args.fp16)
            named = dataset.with_format(None)
            named._fingerprint = Hasher.hash(kind)
            return super()._precompute_ref_logps(named, *rest)

    return Trainer(
        model,
        args=args,
        train_dataset=prepared.load("train"),
        eval_dataset=held_out(prepared),
        processing_class=tokenizer,
        peft_config=adapter(recipe),
    )


STAGES = {"cpt": packed, "sft": packed, "dpo": dpo}


def settings(recipe: Recipe) -> Any:
    """The recipe's `trainer` block as SFTConfig or DPOConfig.

    What the recipe leaves open and TRL would decide against the reader's expectation is decided here: the precision of
    the computation is that of `model.dtype` (TRL's is bfloat16 even on a CPU), nothing is reported to a service, a loss
    that is no number is shown as it is, and a full DPO precomputes its reference.
    """
    import torch
    from trl import DPOConfig, SFTConfig

    given, dtype = recipe.trainer, recipe.model.dtype
    chosen: dict[str, Any] = {
        "bf16": dtype == "bfloat16" and not given.get("fp16"),
        "fp16": dtype == "float16" and not given.get("bf16"),
        "report_to": "none",
        "disable_tqdm": True,  # qilin.watch shows the progress
        "logging_nan_inf_filter": False,  # the default writes the mean of the losses before in place of a nan
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    if recipe.stage == "dpo":
        chosen |= {"precompute_ref_log_probs": recipe.peft is None}
        return DPOConfig(**chosen | given | {"max_length": None})
    fixed = {
        "max_length": None,
        "packing": False,
        "padding_free": flash(recipe.model.attention),
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    return SFTConfig(**chosen | given | fixed)


def adapter(recipe: Recipe) -> Any:
    """The recipe's `peft` block as LoraConfig, or None where all weights are trained."""
    from peft import LoraConfig

    return None if recipe.peft is None else LoraConfig(**{**recipe.peft, "task_type": "CAUSAL_LM"})


def held_out(prepared: "Prepared") -> "dict[str, Dataset] | None":
    """The splits a run is judged on: the data's own held-out rows, and general text where the recipe replays some."""
    splits = {name: prepared.load(name) for name in ("validation", "general") if prepared.splits.get(name)}
    return {name: rows for name, rows in splits.items() if len(rows)} or None


def flash(attention: str | None) -> bool:
    """Whether an attention implementation takes the bounds of documents, and so wants a batch as one long row.

    >>> flash("flash_attention_2"), flash("sdpa"), flash(None)
    (True, False, False)
    """
    return "flash" in (attention or "")


def rows_of(args: Any, tokenizer: Any) -> "Rows | None":
    """How packed rows become a batch; None leaves it to TRL, which lays them end to end for flash attention.

    Any other attention would spend the square of the whole batch on such a row: there each packed row stays a row.
    """
    return None if args.padding_free else Rows(tokenizer.pad_token_id)


class Rows:
    """Packed rows as a batch of rows; positions start anew with each document, which keeps them apart in attention.

    Gives `input_ids`, `labels` and `position_ids`, each rows x length, and `tokens`, how many are no padding. There is
    no attention mask: transformers looks for the bounds of documents only without one. Padding, at the right, is a
    document a token, without loss.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        shape = (len(examples), max(len(row["input_ids"]) for row in examples))
        ids, labels = torch.full(shape, self.pad), torch.full(shape, -100)
        positions = torch.zeros(shape, dtype=torch.long)
        for index, row in enumerate(examples):
            size = len(row["input_ids"])
            ids[index, :size] = torch.as_tensor(row["input_ids"])
            labels[index, :size] = torch.as_tensor(row["labels"])
            positions[index, :size] = torch.cat([torch.arange(length) for length in row["seq_lengths"]])
        labels[positions == 0] = -100  # the token before is another document's
        tokens = torch.tensor(sum(len(row["input_ids"]) for row in examples))
        return {"input_ids": ids, "labels": labels, "position_ids": positions, "tokens": tokens}


class Kept:
    """A model that keeps the log-probability of each row of its first answer; TRL hands on only their means."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.sums: Any = None

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        if self.sums is None:
            self.sums = outputs.log_probs.detach().sum(1)
        return outputs


class HeldOut:
    """What every stage adds to TRL's trainer: exact means over held-out rows, exact counts, and no side effects.

    transformers averages the means of evaluation batches, so that a batch with three trained tokens counts as much as
    one with a thousand. Here the loss is the mean over tokens (cpt, sft) or pairs (dpo), whatever the batch size, and a
    perplexity is that of the whole split. With several processes, rows that fill up the last batch count twice.
    Logs of training also hold `tokens` and `seconds` since the first step of the first session, padding left out.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        self.seconds_before = 0.0  # of earlier sessions of the run
        self._seen: list[tuple[float, float]] = []  # of each evaluation batch: how many items, the sum of their losses
        super().__init__(*args, **keys)

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **keys: Any) -> Any:
        tokens, mask, replies = inputs.pop("tokens", None), inputs.get("attention_mask"), inputs.get("completion_mask")
        asked = model if replies is None or self.model.training else Kept(model)
        loss = super().compute_loss(asked, inputs, *args, **keys)  # type: ignore[misc]
        if self.model.training:
            if tokens is None:
                tokens = inputs["input_ids"].new_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
            self.state.num_input_tokens_seen += int(self.accelerator.gather(tokens).sum().item())
        if replies is not None:
            self._compare(replies.sum(1), asked)
        if not self.model.training:
            items = inputs["labels"][..., 1:].ne(-100).sum() if replies is None else loss.new_tensor(len(replies) // 2)
            weighed = (items.double(), items.double() * loss.double())
            count, total = (self.accelerator.gather_for_metrics(part[None]).sum().item() for part in weighed)
            self._seen.append((count, total))
        return loss

    def _compare(self: Any, lengths: Any, asked: Any) -> None:
        """Log how long replies are and, of held-out pairs, how often the model finds the chosen one likelier.

        TRL's reward accuracy says nothing before the first step, where the model is its own reference: all are ties.
        """
        found = dict(zip(("length/chosen", "length/rejected"), lengths.float().chunk(2), strict=True))
        if isinstance(asked, Kept):
            for name, scores in (("preferred", asked.sums), ("preferred_per_token", asked.sums / lengths.clamp(min=1))):
                chosen, rejected = scores.chunk(2)
                found[name] = (chosen > rejected).float()
        means = self._metrics["train" if self.model.training else "eval"]
        for name, values in found.items():
            means[name].append(self.accelerator.gather(values).mean().item())

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._seen:
            prefix = next(key for key in logs if key.startswith("eval_") and key.endswith("_loss")).removesuffix("loss")
            counts = [count for count, _ in self._seen]
            logs[f"{prefix}loss"] = sum(total for _, total in self._seen) / max(sum(counts), 1)
            for name, means in self._metrics["eval"].items():
                if len(means) == len(counts):
                    weighed = sum(mean * count for mean, count in zip(means, counts, strict=True))
                    logs[f"{prefix}{name}"] = weighed / max(sum(counts), 1)
            if self.state.global_step == 0:
                logs.pop(f"{prefix}rewards/accuracies", None)  # all ties: the model is its own reference
            if f"{prefix}rewards/margins" not in logs:
                logs[f"{prefix}perplexity"] = math.exp(min(logs[f"{prefix}loss"], 700))
            self._metrics["eval"].clear()
            self._seen.clear()
        if start_time is not None:
            logs["tokens"] = self.state.num_input_tokens_seen
            logs["seconds"] = round(self.seconds_before + time.time() - start_time, 3)
            self._metrics["train"].pop("num_tokens", None)  # TRL's own, which starts anew with each session
        super().log(logs, start_time)  # type: ignore[misc]

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: TRL would write its own at each checkpoint, over the card of the run."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""
