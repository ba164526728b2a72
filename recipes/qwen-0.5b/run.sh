#!/usr/bin/env bash
# A real small model from raw sources to a judged model, in about two hours on two cores; on a GPU leave
# `use_cpu` and `rows` out of the recipes. Killed anywhere, the same command goes on where it was.
#
#   RAW      a folder of raw files for each source that chimed.yaml names, as `chimed fetch` lays it out
#   MODEL    the base model: a folder, or a name on the Hub to download
#   RECIPES  a folder with the recipes of another model, whose outputs go below NAME
set -euo pipefail
own=$(cd "$(dirname "$0")" && pwd)
recipes=${RECIPES:-$own} name=${NAME:-qwen-0.5b} model=${MODEL:-Qwen/Qwen2.5-0.5B}

# 1. Raw sources become a dataset a stage; general text is a build of its own, for replay and to see forgetting.
chimed build --stage all --recipe "$own/chimed.yaml" --raw "${RAW:?folder of raw sources}" --out out
chimed build --stage cpt --recipe "$own/general.yaml" --raw "$RAW" --out general

# 2. The base model.
mkdir -p models
if [ ! -e "models/$name" ]; then
  if [ -d "$model" ]; then
    ln -s "$(cd "$model" && pwd)" "models/$name"
  else
    hf download "$model" --local-dir "models/$name"
  fi
fi

# 3. Continued pre-training, fine-tuning, preferences: each an adapter, merged and checked to answer the same.
for stage in cpt sft dpo; do
  qilin train "$recipes/$stage.yaml"
  [ -e "$name/$stage-merged" ] || qilin merge "$name/$stage" --out "$name/$stage-merged"
done

# 4. The exams, closed book and with passages.
qilin index out/rag --eval out/eval --out index
qilin eval "$recipes/eval.yaml"
