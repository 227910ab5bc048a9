"""Readable files of a policy, and hidden ones in readable folders."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_autoresearch.sandbox.paths import PACKAGE, Layout, layout, resolve, within
from pytest_autoresearch.sandbox.policy import Policy, SandboxError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")


def granted(found: Layout, path: Path) -> bool:
    """Return whether a rule grants reading `path` (rights 4, READ_FILE)."""
    real = os.path.realpath(path)
    return any(
        rule.rights & 4 and within(real, os.path.realpath(rule.path)) for rule in found.rules
    )


def shown(found: Layout, path: Path) -> bool:
    """Return whether a private root shows `path`."""
    real = os.path.realpath(path)
    roots = [root for root in found.roots if within(real, root)]
    holes = [hole for hole in found.holes if within(real, hole)]
    return bool(roots) and max(map(len, roots)) > max(map(len, holes), default=-1)


def readable(found: Layout, path: Path) -> bool:
    """Return whether `path` is readable; both mechanisms must agree."""
    assert granted(found, path) == shown(found, path), path
    return granted(found, path)


def test_folder_without_secrets_is_one_rule(tmp_path):
    make(tmp_path, "a", "b/c", "b/d")
    found = layout(Policy(read=(str(tmp_path),)))
    assert [rule.path for rule in found.rules if within(rule.path, str(tmp_path))] == [
        str(tmp_path)
    ]


def test_hidden_file_is_unreadable_and_its_neighbours_are_readable(tmp_path):
    make(tmp_path, "pkg/secret.py", "pkg/open.py", "pkg/deep/other.py", "top.py")
    found = layout(Policy(read=(str(tmp_path),), hide=(str(tmp_path / "pkg/secret.py"),)))
    assert not readable(found, tmp_path / "pkg/secret.py")
    for name in ("pkg/open.py", "pkg/deep/other.py", "top.py"):
        assert readable(found, tmp_path / name)


def test_compiled_forms_of_a_hidden_source_are_hidden(tmp_path):
    make(
        tmp_path, "m.py", "n.py", "__pycache__/m.cpython-311.pyc",
        "__pycache__/m.cpython-399.opt-2.pyc", "__pycache__/n.cpython-311.pyc", "m.pyc",
    )  # fmt: skip
    found = layout(Policy(read=(str(tmp_path),), hide=(str(tmp_path / "m.py"),)))
    for name in ("__pycache__/m.cpython-311.pyc", "__pycache__/m.cpython-399.opt-2.pyc", "m.pyc"):
        assert not readable(found, tmp_path / name)
    assert readable(found, tmp_path / "__pycache__/n.cpython-311.pyc")


def test_hard_links_and_copies_of_a_hidden_source_are_hidden(tmp_path):
    make(tmp_path, "lib/m.py", "lib/n.py", "other/m.py", "far/n.py")
    os.link(tmp_path / "lib/m.py", tmp_path / "other/renamed.txt")
    (tmp_path / "far/m.py").write_text("text of lib/m.py")
    found = layout(Policy(read=(str(tmp_path),), hide=(str(tmp_path / "lib/m.py"),)))
    assert not readable(found, tmp_path / "other/renamed.txt")
    assert not readable(found, tmp_path / "far/m.py")
    assert readable(found, tmp_path / "other/m.py")  # another text of the same name


def test_hard_link_to_a_hidden_file_stays_hidden_when_named(tmp_path):
    make(tmp_path, "m.py")
    os.link(tmp_path / "m.py", tmp_path / "link")
    found = layout(Policy(read=(str(tmp_path / "link"),), hide=(str(tmp_path / "m.py"),)))
    assert not granted(found, tmp_path / "link")


def test_hiding_through_a_symbolic_link_hides_the_file(tmp_path):
    make(tmp_path, "real/m.py", "real/n.py")
    (tmp_path / "link").symlink_to("real")
    policy = Policy(read=(str(tmp_path / "link"),), hide=(str(tmp_path / "link/m.py"),))
    found = layout(policy)
    assert not readable(found, tmp_path / "real/m.py")
    assert readable(found, tmp_path / "link/n.py")
    assert (str(tmp_path / "link"), "real") in found.links


def test_hidden_folder_is_unreadable(tmp_path):
    make(tmp_path, "data/val.bin", "code.py")
    found = layout(Policy(read=(str(tmp_path),), hide=(str(tmp_path / "data"),)))
    assert not readable(found, tmp_path / "data/val.bin")
    assert readable(found, tmp_path / "code.py")


def test_campaign_state_is_hidden_unless_a_path_in_it_is_named(tmp_path):
    make(tmp_path, ".autoresearch/data/val.bin", ".autoresearch/runs/7/train.py", "train.py")
    copy = tmp_path / ".autoresearch/runs/7"
    found = layout(Policy(read=(str(tmp_path), str(copy))))
    assert not readable(found, tmp_path / ".autoresearch/data/val.bin")
    assert readable(found, copy / "train.py")
    assert readable(found, tmp_path / "train.py")


def test_hidden_file_stays_hidden_when_named(tmp_path):
    make(tmp_path, "data/val.bin", "data/train.bin")
    hide = (str(tmp_path / "data"),)
    found = layout(Policy(read=(str(tmp_path / "data/val.bin"),), hide=hide))
    assert not granted(found, tmp_path / "data/val.bin")
    assert str(tmp_path / "data/val.bin") not in found.roots


def test_writable_folder_must_not_hold_a_secret(tmp_path):
    make(tmp_path, "m.py")
    with pytest.raises(SandboxError, match="must stay hidden"):
        layout(Policy(write=(str(tmp_path),), hide=(str(tmp_path / "m.py"),)))


def test_this_package_is_hidden_unless_named():
    module = Path(PACKAGE, "judge", "__init__.py")
    parent = os.path.dirname(PACKAGE)
    assert not granted(layout(Policy()), module)
    assert not readable(layout(Policy(read=(parent,))), Path(PACKAGE, "__init__.py"))
    assert granted(layout(Policy(read=(PACKAGE,))), Path(PACKAGE, "__init__.py"))


def test_interpreter_library_and_packages_are_readable():
    found = layout(Policy())
    needed = [sys.executable, os.__file__, sysconfig.get_path("stdlib"), pytest.__file__]
    needed += [f"{sys.prefix}/pyvenv.cfg"] if sys.prefix != sys.base_prefix else []
    for path in needed:
        assert readable(found, Path(path)), path


def test_only_the_running_interpreters_library_is_readable(tmp_path):
    """Hide other installations, which hold the same texts."""
    make(tmp_path, *(f"python3.9/{name}.py" for name in ("os", "abc", "types", "mailbox")), "x.py")
    secret = os.path.join(sysconfig.get_path("stdlib"), "mailbox.py")
    make(tmp_path, "python311.zip")
    found = layout(Policy(read=(str(tmp_path),), hide=(secret,)))
    assert not readable(found, tmp_path / "python3.9/mailbox.py")
    assert not readable(found, tmp_path / "python311.zip")
    assert readable(found, tmp_path / "x.py")
    assert not readable(found, Path(secret))
    assert readable(found, Path(os.__file__))


def test_links_are_resolved_one_by_one(tmp_path):
    make(tmp_path, "real/inner/file")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "real")
    real, links = resolve(str(tmp_path / "first/inner/file"))
    assert real == str(tmp_path / "real/inner/file")
    assert links == [
        (str(tmp_path / "first"), "second"),
        (str(tmp_path / "second"), str(tmp_path / "real")),
    ]


def test_loop_of_links_ends():
    assert resolve("/proc/self/cwd/../../..")[0]


def test_missing_path_is_ignored(tmp_path):
    found = layout(Policy(read=(str(tmp_path / "nowhere"),)))
    assert not any(within(rule.path, str(tmp_path)) for rule in found.rules)
