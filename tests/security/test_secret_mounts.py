"""A kit in a mount of secrets, as Kubernetes lays it out, on a real file system in memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hanse.security import kits

# Mounts a kit, changes one thing in it, and opens it as root or as another user of the group 2000.
SCRIPT = """
import os, shutil, subprocess, sys
from pathlib import Path
from hanse.errors import UserError
from hanse.security import kits as identity

source, mount, user, changed, mode = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", mount], check=True)
data, place = Path(mount, "..2026_01_01"), Path(mount)
shutil.copytree(source, data)
for path in (data, *data.rglob("*")):
    os.chown(path, 0, 2000)
    path.chmod(0o2755 if path.is_dir() else 0o440)
(place / "..data").symlink_to(data.name)
for path in data.iterdir():
    (place / path.name).symlink_to(Path("..data", path.name))
os.chown(mount, 0, 2000)
if user == "root":
    for path in data.glob("*.*"):
        path.chmod(0o400)
if changed == "writable":
    pass
elif changed == "owner":
    os.chown(data / "server.pub", 4000, 2000)
elif changed:
    (place / changed).chmod(int(mode, 8))
if changed != "writable":
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
if user != "root":
    os.setgroups([2000])
    os.setgid(1000)
    os.setuid(1000)
try:
    print(sorted(identity.open_silo(place, "a").silos))
except UserError as error:
    print(error)
"""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A silo's kit, which knows another one."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this machine lets nobody mount anything here")
    server = kits.init(tmp_path / "hub", [], 30)
    for name in ("a", "b"):
        kits.enrol(server.folder, kits.make_keys(tmp_path / name, name))
    for file in ("ca.crt", "server.pub"):
        shutil.copy(server.folder / file, tmp_path / "a" / file)
    (tmp_path / "a" / "silos").mkdir()
    shutil.copy(tmp_path / "b" / "b.pub", tmp_path / "a" / "silos" / "b.pub")
    return tmp_path / "a"


def opened(kit: Path, user: str, changed: str = "", mode: str = "0") -> str:
    """What is said of the kit, as a mount in which something was changed."""
    home = Path("/tmp", f"hanse-mount-{kit.parent.name}")
    home.mkdir(mode=0o755)
    try:
        words = ["unshare", "-m", sys.executable, "-c", SCRIPT, str(kit), str(home), user]
        done = subprocess.run([*words, changed, mode], capture_output=True, text=True, check=False)
    finally:
        home.rmdir()
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("user", ["root", "1000"])
def test_a_kit_in_a_mount_of_secrets_is_taken(kit: Path, user: str) -> None:
    assert json.loads(opened(kit, user).replace("'", '"')) == ["b"]


@pytest.mark.parametrize(
    ("changed", "mode", "said"),
    [
        ("writable", "", "has mode 1777"),  # the mount itself is not read-only
        (".", "777", "has mode 0777"),
        ("ca.crt", "646", "has mode 0646"),
        ("..data/silos", "2777", "has mode 2777"),
        ("silos/b.pub", "664", "has mode 0664"),
        ("..data", "2775", "has mode 2775"),
        ("a.key", "444", "other users can reach it"),
        ("a.ssh", "460", "other users can reach it"),
        ("owner", "", "belongs to another user"),
    ],
)
def test_what_others_could_change_or_read_is_not(
    kit: Path, changed: str, mode: str, said: str
) -> None:
    assert said in opened(kit, "1000", changed, mode)
