#!/usr/bin/env bash
# The story of recipes/qwen-0.5b with a smaller model, which knows hardly any Chinese: its tokenizer takes two to three
# tokens a character. Good for trying things out, not for a model. RAW and MODEL as there.
set -euo pipefail
own=$(cd "$(dirname "$0")" && pwd)
RECIPES=$own NAME=smollm2-135m MODEL=${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct} exec bash "$own/../qwen-0.5b/run.sh" # qilin train, merge
