"""Trains one stage, as `qilin train` does: for launchers that start a script in each process.

accelerate launch --config_file recipes/accelerate/ddp-8.yaml recipes/train.py recipes/qilin-7b/sft.yaml
"""

import sys

from qilin.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
