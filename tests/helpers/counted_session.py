"""Run a script as its own program, and count the images that pass a backbone in it.

``python counted_session.py SCRIPT COUNT`` writes the count into the file COUNT.
"""

import runpy
import sys
from pathlib import Path

from sklearn_clce.backbones import FrozenBackbone

n_images = 0
runner = FrozenBackbone.runner


def counting_runner(self, *args):
    run = runner(self, *args)

    def counted(batch):
        global n_images
        n_images += len(batch)
        return run(batch)

    return counted


if __name__ == "__main__":
    FrozenBackbone.runner = counting_runner
    runpy.run_path(sys.argv[1], run_name="__main__")
    Path(sys.argv[2]).write_text(str(n_images))
