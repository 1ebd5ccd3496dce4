"""CANN on this machine: its environment scripts, the environment that they make, and the programs found there.

Folders and files are those of CANN's install documents, 8.0 to 9.1 (contract ATC, where it lies).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError

RELEASES = range(5, 20)  # their first numbers; 3.12 is a Python, and 22.04 a Linux
_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})((?:\.\d{1,4})*)(?:[.~-]?([A-Za-z]+)[.-]?(\d{0,9}).*)?", re.ASCII)
_HOMES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")  # variables that set_env.sh sets
_PROGRAM_FOLDERS = ("bin", "tools/profiler/bin")  # of an installed release
TOOLKIT_RECORD = "ascend_toolkit_install.info"  # what the installer wrote, in <arch>-linux
SECONDS = 30  # for set_env.sh, which reads a few files
_STAGES = ("alpha", "beta", "rc")  # on the way to a release, in this order

# The driver's library, of which ATC needs at least the stub that the toolkit brings, and where drivers put it.
DRIVER_LIBRARY = "libascend_hal.so"
DRIVER_FOLDERS = (
    *(f"/usr/local/Ascend/driver/lib64/{folder}" for folder in ("", "driver", "common")),
    *("/usr/lib64", f"/usr/lib/{platform.machine()}-linux-gnu"),
)


class Release(NamedTuple):
    """A release of CANN, ordered as they appeared: 8.0.RC1, 8.5.0, 9.0.0-beta.1, 9.0.0, 9.10.0."""

    numbers: tuple[int, ...]
    stage: int
    nth: int
    text: str

    @property
    def minor(self) -> tuple[int, ...]:
        """The first two numbers, by which the documents are divided."""
        return self.numbers[:2]

    @property
    def is_final(self) -> bool:
        """Whether it is no alpha, beta or release candidate."""
        return self.stage == len(_STAGES)

    def __str__(self) -> str:
        return self.text


def parse_release(text: str) -> Release | None:
    """The release that `text` names, `cann-` before it or not; None where it names none."""
    bare = re.sub(r"^cann[-_]", "", text.strip(), flags=re.IGNORECASE)
    match = _RELEASE.fullmatch(bare)
    if match is None or int(match[1]) not in RELEASES:
        return None
    patch = [int(number) for number in match[3].split(".") if number]
    word = (match[4] or "").lower()
    stage = _STAGES.index(word) if word in _STAGES else 0 if word else len(_STAGES)
    return Release((int(match[1]), int(match[2]), *(patch or [0])), stage, int(match[5] or 0), bare)


@dataclasses.dataclass(frozen=True)
class Toolkit:
    """Where atc lies, and the environment variables it runs under."""

    atc: str
    environment: dict[str, str]

    @property
    def root(self) -> Path | None:
        """The folder that its release is installed in, which holds <arch>-linux; None where it has another layout."""
        return next((folder for folder in Path(os.path.realpath(self.atc)).parents if _arch(folder).is_dir()), None)

    @property
    def release(self) -> Release | None:
        """The release, by what its installer recorded, else by the name of the folder that it is installed in."""
        if self.root is not None:
            return release_in(self.root)
        folders = [parse_release(name) for name in Path(os.path.realpath(self.atc)).parent.parts]
        return next((release for release in reversed(folders) if release), None)

    @property
    def devlib(self) -> Path | None:
        """The folder with a stub of the driver's library, for machines without a driver."""
        folder = self.root and _arch(self.root) / "devlib"
        return folder if folder and folder.is_dir() else None

    def driver(self) -> Path | None:
        """The driver's library, or its stub, that a program in this environment finds; None without either."""
        folders = [*self.environment.get("LD_LIBRARY_PATH", "").split(os.pathsep), *DRIVER_FOLDERS]
        paths = (Path(folder, DRIVER_LIBRARY) for folder in folders if folder)
        return next((path for path in paths if path.is_file()), None)

    def compiling_environment(self) -> dict[str, str]:
        """The environment for ATC, which needs no driver, but its library: `devlib` comes last where there is none."""
        if self.driver() is not None or self.devlib is None:
            return self.environment
        paths = [self.environment.get("LD_LIBRARY_PATH", ""), str(self.devlib)]
        return {**self.environment, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}


def find_toolkit() -> Toolkit | None:
    """The atc on PATH, or the one that the first set_env.sh which has one puts there; None without either."""
    for environment in environments():
        atc = shutil.which("atc", path=environment.get("PATH", ""))
        if atc is not None:
            return Toolkit(os.path.abspath(atc), environment)
    return None


def find_program(name: str) -> str | None:
    """Where a program of CANN's lies that may be off PATH: in the first environment which leads to one.

    Looked through are PATH, the folders that CANN's variables name, and the one that the atc on PATH is installed in.
    """
    for environment in environments():
        atc = shutil.which("atc", path=environment.get("PATH", ""))
        homes = [*_homes(environment), Toolkit(atc, environment).root if atc else None]
        folders = [os.path.join(home, folder) for home in homes if home for folder in _PROGRAM_FOLDERS]
        found = shutil.which(name, path=os.pathsep.join([environment.get("PATH", ""), *folders]))
        if found is not None:
            return os.path.abspath(found)
    return None


def environments() -> Iterator[dict[str, str]]:
    """The environment of this process, then those that CANN's scripts make of it, in their order."""
    return itertools.chain([dict(os.environ)], map(sourced, set_env_scripts()))


def set_env_scripts() -> Iterator[Path]:
    """CANN's environment scripts here: by the variables that are set, then what is installed, the newest first."""
    beside = (folder / "set_env.sh" for home in _homes(os.environ) for folder in (home.parent, home))
    yield from filter(Path.is_file, beside)
    yield from installed_scripts(install_roots())


def _homes(environment: Mapping[str, str]) -> list[Path]:
    return [Path(environment[variable]) for variable in _HOMES if environment.get(variable)]


def install_roots() -> list[Path]:
    """Where CANN installs itself: for root, for users without root, and as a package of this Python."""
    own = Path(sysconfig.get_path("purelib"), "ascend")
    return [Path("/usr/local/Ascend"), Path(os.path.expanduser("~"), "Ascend"), own]


def installed_scripts(roots: Iterable[Path]) -> list[Path]:
    """The set_env.sh of every release in `roots`, the newest first and those that do not tell theirs last.

    Up to 8.3 ascend-toolkit/set_env.sh serves the folder `latest` beside it; from 8.5 on each release has its own, in
    cann-8.5.0, and `cann` is a link to one. Hosts that run models alone may have nnrt or nnae in place of the toolkit.
    """
    patterns = ("[cC]*", "[0-9]*", "ascend-toolkit", "ascend-toolkit/*", "nnrt", "nnrt/*", "nnae", "nnae/*")
    found = (script for root in roots for pattern in patterns for script in sorted(root.glob(f"{pattern}/set_env.sh")))
    scripts = {os.path.realpath(script): script for script in found}
    return sorted(scripts.values(), key=_release_of_script, reverse=True)


def _release_of_script(script: Path) -> Release:
    return release_in(Path(os.path.realpath(script)).parent) or Release((), 0, 0, "")


def release_in(folder: Path) -> Release | None:
    """The release that is installed in `folder`, or of several there the one that `latest` is."""
    recorded = parse_release(record(folder, TOOLKIT_RECORD).get("version", ""))
    if recorded is None and (folder / "latest").is_dir():
        return release_in(Path(os.path.realpath(folder / "latest")))
    return recorded or parse_release(os.path.basename(os.path.realpath(folder)))


def record(root: Path, name: str) -> dict[str, str]:
    """What an installer recorded of a package in the file `name`: package_name, version and more; {} without one."""
    try:
        text = (_arch(root) / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _arch(root: Path) -> Path:
    return root / f"{platform.machine()}-linux"


def sourced(script: Path) -> dict[str, str]:
    """The environment after `source script`; its exit code says little, since it is that of its last line.

    Raises PipelineError where the script does not end.
    """
    command = ["bash", "-c", 'source "$1" >/dev/null 2>&1; env -0', "bash", str(script.absolute())]
    try:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS).stdout
    except subprocess.TimeoutExpired:
        raise PipelineError(f"{script}: does not end in {SECONDS} seconds; source it by hand to see why") from None
    pairs = (os.fsdecode(entry).partition("=") for entry in output.split(b"\0") if entry)
    return {key: value for key, _, value in pairs}
