#!/usr/bin/env bash
# Qilin-Med 7B on eight GPUs, from raw sources to the model after every stage. BASE=qwen or BASE=baichuan.
#
#   RAW      a folder of raw files for each source, as `chimed fetch` and docs/sources.md lay it out
#   GENERAL  the same for general text, mixed into continued pre-training
set -euo pipefail
recipes=$(cd "$(dirname "$0")/.." && pwd)
own=$recipes/qilin-7b/${BASE:=qwen}
launch() { accelerate launch --config_file "$recipes/accelerate/$1.yaml" "$recipes/train.py" "$2"; }

chimed build --stage all --raw "${RAW:?folder of raw sources}" --out out
chimed build --stage cpt --raw "${GENERAL:?folder of raw general text}" --out general

# Baichuan's folder, as downloaded, becomes a Llama; none of its code runs.
if [ "$BASE" = baichuan ] && [ ! -e models/baichuan-7b ]; then
  qilin import "${BAICHUAN:?folder of Baichuan-7B}" --out models/baichuan-7b
fi

qilin plan "$own/cpt.yaml" --gpu H100
launch fsdp2-8 "$own/cpt.yaml"
launch ddp-8 "$own/sft.yaml"
[ -e "runs/$BASE/sft-merged" ] || qilin merge "runs/$BASE/sft" --out "runs/$BASE/sft-merged"
launch ddp-8 "$own/dpo.yaml"
[ -e "runs/$BASE/dpo-merged" ] || qilin merge "runs/$BASE/dpo" --out "runs/$BASE/dpo-merged"

qilin index out/rag --eval out/eval --out index
qilin eval "$own/eval.yaml"
