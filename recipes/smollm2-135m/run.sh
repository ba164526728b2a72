#!/usr/bin/env bash
# The story of recipes/qwen-0.5b with a smaller model, which knows hardly any Chinese: its tokenizer takes two to three
# tokens a character. Good for trying things out, not for a model. RAW, SIZE and MODEL as there.
set -euo pipefail
own=$(cd "$(dirname "$0")" && pwd)
export NAME=smollm2-135m TEMPLATE=chatml MODEL=${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}
exec bash "$own/../qwen-0.5b/run.sh" # qilin train, eval, merge
