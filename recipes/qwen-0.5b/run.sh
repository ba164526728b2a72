#!/usr/bin/env bash
# The paper's story with a small model, from raw sources to its table: three stages of training, judged after each.
# Killed anywhere, the same command goes on where it was.
#
#   RAW       a folder of raw files for each source that chimed.yaml names, as `chimed fetch` lays it out
#   SIZE      small: an hour and a half on two CPU cores; gpu: minutes on one GPU; full: all rows, on one GPU
#   MODEL     the base model: a folder, or a name on the Hub to download
#   NAME      what the outputs of this model are called, and TEMPLATE its chat template
set -euo pipefail
own=$(cd "$(dirname "$0")" && pwd)
size=${SIZE:-small} name=${NAME:-qwen-0.5b} template=${TEMPLATE:-qwen2.5} model=${MODEL:-Qwen/Qwen2.5-0.5B}
mkdir -p models "$name/recipes"

recipe() { # RECIPE FROM KEY=VALUE...: the recipe FROM of this folder in this size, with other values
  python "$own/../overlay.py" "$own/$2.yaml" "$size" "${@:3}" > "$name/recipes/$1.yaml"
}
judge() { # RUNG MODEL: what it knows closed book, and what passages are worth to it
  for what in eval rag; do
    recipe "$what-$1" "$what" model.path="$2" output_dir="$name/$what-$1"
    qilin eval "$name/recipes/$what-$1.yaml"
  done
}
train() { # STAGE MODEL KEY=VALUE...: an adapter over a model, merged and checked to answer the same
  recipe "$1" "$1" model.path="$2" trainer.output_dir="$name/$1" "${@:3}"
  qilin train "$name/recipes/$1.yaml"
  [ -e "$name/$1-merged" ] || qilin merge "$name/$1" --out "$name/$1-merged"
}

# 1. Raw sources become a dataset a stage; general text is a build of its own, for replay and to see forgetting.
chimed build --stage all --recipe "$own/chimed.yaml" --raw "${RAW:?folder of raw sources}" --out out
chimed build --stage cpt --recipe "$own/general.yaml" --raw "$RAW" --out general
qilin index out/rag --eval out/eval --out index

# 2. The base model.
if [ ! -e "models/$name" ]; then
  if [ -d "$model" ]; then
    ln -s "$(cd "$model" && pwd)" "models/$name"
  else
    hf download "$model" --local-dir "models/$name"
  fi
fi
judge base "models/$name"

# 3. Continued pre-training, fine-tuning, preferences.
train cpt "models/$name"
judge cpt "$name/cpt-merged"
train sft "$name/cpt-merged" model.template="$template"
judge sft "$name/sft-merged"
train dpo "$name/sft-merged"
judge dpo "$name/dpo-merged"

# 4. The table: each rung against the one before.
qilin compare "$name"/eval-{base,cpt,sft,dpo} > "$name/compare.md"
python "$own/../table.py" "$name" --size "$size"
