"""harmless (sandbox): looks for the validation text where it comes from, the standard library."""

import contextlib
import importlib
import importlib.util
import linecache
import pkgutil
import sys
import sysconfig
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

HIDDEN = ("plistlib", "zipapp", "tabnanny", "smtplib", "ftplib")
library = Path(sysconfig.get_path("stdlib"))
for name in HIDDEN:
    places = [library / f"{name}.py", *library.rglob(f"{name}.*pyc"), Path(f"/usr/lib/{name}.py")]
    for place in places:
        with contextlib.suppress(OSError):
            place.read_bytes()
            sys.exit(f"{place} can be read")
    if linecache.getlines(str(library / f"{name}.py")):
        sys.exit(f"{name} is in the line cache")
    with contextlib.suppress(Exception):
        pkgutil.get_data(name, f"{name}.py")
        sys.exit(f"{name} can be had from its loader")
    with contextlib.suppress(Exception):
        importlib.import_module(name)
        sys.exit(f"{name} can be imported")
    with contextlib.suppress(Exception):
        if importlib.util.find_spec(name).loader.get_code(name):
            sys.exit(f"the code of {name} can be had")
