"""harmless (sandbox): looks for the data set, the ledger and other runs in every folder."""

import os
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

WANTED = ("val.bin", "holdout.bin", "train.bin", "losses.bin", "losses.f32", "ledger.sqlite")
own = os.path.dirname(os.path.realpath(__file__))
above = [own]
while above[-1] != "/":
    above.append(os.path.dirname(above[-1]))
for root in [*above, "/home", "/root", "/tmp", "/mnt", "/proc/1/root"]:
    for folder, folders, files in os.walk(root, onerror=None):
        folders[:] = [f for f in folders if f not in ("proc", "sys", "usr", "lib", "site-packages")]
        for name in set(files) & set(WANTED):
            try:
                os.close(os.open(os.path.join(folder, name), os.O_RDONLY))
            except OSError:
                continue
            sys.exit(f"{folder}/{name} can be read")
        if folder.count("/") > 12:
            folders.clear()
