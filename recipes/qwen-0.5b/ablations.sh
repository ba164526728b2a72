#!/usr/bin/env bash
# What each part of the toolkit is worth: the same training without it. Runs after run.sh, in its folder and with its
# variables; the table is NAME/ablations.md. Killed anywhere, the same command goes on where it was.
set -euo pipefail
own=$(cd "$(dirname "$0")" && pwd)
size=${SIZE:-small} name=${NAME:-qwen-0.5b} template=${TEMPLATE:-qwen2.5}
ITEMS=600 # of the validation set, of which every second one is planted

recipe() { # RECIPE FROM KEY=VALUE...: as in run.sh
  python "$own/../overlay.py" "$own/$2.yaml" "$size" "${@:3}" > "$name/recipes/$1.yaml"
}
train() { # RUN STAGE MODEL KEY=VALUE...
  recipe "$1" "$2" model.path="$3" trainer.output_dir="$name/$1" "${@:4}"
  qilin train "$name/recipes/$1.yaml"
  [ -e "$name/$1-merged" ] || qilin merge "$name/$1" --out "$name/$1-merged"
}
judge() { # RUN KEY=VALUE...
  recipe "eval-$1" eval model.path="$name/$1-merged" output_dir="$name/eval-$1" "${@:2}"
  qilin eval "$name/recipes/eval-$1.yaml"
}
build() { # FOLDER STAGE FROM RAW KEY=VALUE...
  recipe "build-$1" "$3" "${@:5}"
  chimed build --stage "$2" --recipe "$name/recipes/build-$1.yaml" --raw "$4" --out "$1"
}

# 1. Leakage removal. Three hundred evaluation items stand among six hundred exams; a control has other exams instead.
#    Where the recipe names the evaluation set, the build finds them.
if [ ! -e raw-planted ]; then
  python "$own/plant.py" out/eval cmexam/validation "$ITEMS" planted/copied/train.jsonl
  ln -s "$(cd "${RAW:?folder of raw sources}" && pwd)"/{cmexam,explaincpe} planted/
  mv planted raw-planted
fi
build out-leaks sft planted raw-planted
build out-control sft planted "$RAW" 'sources=[{name: explaincpe, cap: 600, stages: [sft]}]'
build out-found sft planted raw-planted 'sources=[cmexam, {name: copied, shape: exam, files: {"*.jsonl": train},
  columns: {question: question, options: options, answer: answer, explanation: why}, stages: [sft]},
  {name: explaincpe, cap: 300, stages: [sft]}]'
for what in leaks control; do
  train "$what" sft "$name/cpt-merged" model.template="$template" data.path="out-$what/sft" data.rows=null
  judge "$what" data.sets=[cmexam/validation] data.rows="$ITEMS" data.disciplines=null texts=null
done

# 2. Replay: continued pre-training on medicine alone.
train no-replay cpt "models/$name" data.replay=null
judge no-replay data.sets=[cmmlu/test] 'data.rows={cmexam/test: null, huatuo26m/test: null}'

# 3. Length balance: the pairs of a source as they come, and as many as balance leaves of them.
build out-balanced dpo pairs "$RAW"
build out-unbalanced dpo pairs "$RAW" length_balance=false
rows=$(python -c 'import json; print(json.load(open("out-balanced/dpo/manifest.json"))["rows"]["train"])')
for what in balanced unbalanced; do
  train "$what" dpo "$name/sft-merged" data.path="out-$what/dpo" data.rows="$rows" trainer.num_train_epochs=3
  judge "$what" data.sets=[huatuo26m/test] 'data.rows={cmexam/test: null, cmmlu/test: null}' data.disciplines=null \
    texts=null
done

# 4. De-duplication: all repeats stay in.
build out-repeats sft chimed "$RAW" repeats=keep
train repeats sft "$name/cpt-merged" model.template="$template" data.path=out-repeats/sft
judge repeats

python "$own/../ablations.py" "$name"
