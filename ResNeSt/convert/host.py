"""What of an Ascend host ATC needs, by its release: Python, NumPy, Python packages, the driver's library, operators.

Source: CANN's install documents of 8.0 to 9.1, "runtime dependencies" (contract ATC, corrections).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.common.cann import DRIVER_LIBRARY, TOOLKIT_RECORD, Release, Toolkit, record
from ResNeSt.convert.finding import FAILS, NOTE, OK, Finding

Version = tuple[int, ...]

# What ATC's operator builder imports, by its name in Python and that of the package.
PACKAGES = {
    "absl": "absl-py",
    "attr": "attrs",
    "cffi": "cffi",
    "cloudpickle": "cloudpickle",
    "decorator": "decorator",
    "google.protobuf": "protobuf",
    "ml_dtypes": "ml-dtypes",
    "numpy": "numpy",
    "pathlib2": "pathlib2",
    "psutil": "psutil",
    "scipy": "scipy",
    "sympy": "sympy",
    "tornado": "tornado",
    "yaml": "pyyaml",
}


class Range(NamedTuple):
    """Versions from `first` to `last`, all that begin like it included, or without an end."""

    first: Version
    last: Version | None = None

    def holds(self, version: Version) -> bool:
        """Whether the version is one of them."""
        return version >= self.first and (self.last is None or version[: len(self.last)] <= self.last)

    @property
    def below(self) -> str | None:
        """The first version that is none of them any more."""
        return _text((*self.last[:-1], self.last[-1] + 1)) if self.last else None

    def __str__(self) -> str:
        if self.last is None:
            return f"{_text(self.first)} or newer"
        return f"{_text(self.first)} to {f'below {self.below}' if len(self.last) == 1 else _text(self.last)}"


class Documented(NamedTuple):
    """What the install guide of a release takes, and what another document of the same release says."""

    python: Range
    numpy: Range
    python_elsewhere: Range | None = None
    numpy_elsewhere: Range | None = None


# The container images carry a newer 3.11, and CANN's advice where NumPy 2 is too new is 1.26.
_TO_8_3 = Documented(
    Range((3, 7), (3, 11, 4)), Range((1, 19, 2), (1, 24)), Range((3, 7), (3, 11)), Range((1, 19, 2), (1, 26))
)
DOCUMENTED = {
    **dict.fromkeys([(8, 0), (8, 1), (8, 2), (8, 3)], _TO_8_3),
    (8, 5): Documented(Range((3, 7), (3, 13)), Range((1, 19, 2), (1,))),
    (9, 0): Documented(Range((3, 7), (3, 11)), Range((1, 19, 2)), Range((3, 7), (3, 13))),
    (9, 1): Documented(Range((3, 7), (3, 14)), Range((1, 19, 2))),
}
# 8.5 under a Python that no older NumPy was built for: above 2.1, though elsewhere no release before 9.0 takes NumPy 2.
_OF_8_5_FROM_PYTHON_3_13 = DOCUMENTED[8, 5]._replace(numpy=Range((2, 1)), numpy_elsewhere=Range((1, 19, 2)))

# From this release on the operators of each series of chips are a package of their own, one in a folder of CANN's.
OPS_SINCE = (8, 5)
OPS_RECORD = "ascend_ops_install.info"
_OPS = {
    "310p": r"310P\d?",
    "310b": r"310B\d?",
    "910": r"910(A|B|Pro[AB]|PremiumA)",
    "910b": r"910B\d.*",
    "a3": r"910_93\w+",
    "950": r"950(PR|DT)?(_\w+)?",
}
# Their folders below opp/built-in/op_impl/ai_core/tbe/config.
_OPS_FOLDERS = {"a3": "ascend910_93"}

_PROBE = """
import importlib.util, json, sys

def lacks(name):
    try:
        return importlib.util.find_spec(name) is None
    except (ImportError, ValueError):
        return True

try:
    import numpy
    version = numpy.__version__
except Exception:
    version = None
missing = [name for name in sys.argv[1:] if lacks(name) or name == "numpy" and version is None]
print(json.dumps({"python": "%d.%d.%d" % sys.version_info[:3], "numpy": version, "missing": missing}))
"""


def findings(toolkit: Toolkit, chip: str) -> Iterator[Finding]:
    """What speaks for or against compiling for `chip` with this toolkit on this host."""
    yield from _python(toolkit)
    yield _driver(toolkit)
    yield from _operators(toolkit, chip)


def pip_line(modules: Iterable[str], numpy: Range | None = None) -> str:
    """The command that installs the packages of these modules, and of NumPy a version that is in the range."""
    names = [PACKAGES.get(module, module) for module in modules]
    wanted = f"'numpy<{numpy.below}'" if numpy and numpy.below else "numpy"
    return f"python3 -m pip install {' '.join(wanted if name == 'numpy' else name for name in names)}"


def _python(toolkit: Toolkit) -> Iterator[Finding]:
    """Of the python3 that ATC's operator builder starts."""
    found = _probed(toolkit)
    if found is None:
        yield Finding(FAILS, "python3", "cannot be started, and ATC's operator builder needs it; put one on PATH")
        return
    python, release = _version(found["python"]), toolkit.release
    rows = documented(release, python)
    numpy = rows[0].numpy if rows and release else None
    ranges = [(row.python, row.python_elsewhere) for row in rows]
    yield _judged("python3", found["python"], release, ranges, "put such a python3 first on PATH")
    if found["numpy"]:
        ranges = [(row.numpy, row.numpy_elsewhere) for row in rows]
        yield _judged("numpy", found["numpy"], release, ranges, pip_line(["numpy"], numpy))
    if found["missing"]:
        names = ", ".join(PACKAGES[module] for module in found["missing"])
        text = f"python3 lacks {names}, which ATC's operator builder imports; {pip_line(found['missing'], numpy)}"
        yield Finding(FAILS, "packages", text)
    else:
        yield Finding(OK, "packages", f"all {len(PACKAGES)} that ATC's operator builder imports")


def documented(release: Release | None, python: Version) -> list[Documented]:
    """What the release takes under this Python; all on record where the release is not known, [] where it is not there.

    The alphas and betas of a release are documented as that one, or still as the one before.
    """
    if release is None:
        return list(dict.fromkeys(DOCUMENTED.values()))
    if release.minor not in DOCUMENTED:
        return []
    minors = sorted(DOCUMENTED)
    before = minors[max(minors.index(release.minor) - 1, 0)]
    minor = [release.minor] if release.is_final else [release.minor, before]
    of_8_5 = _OF_8_5_FROM_PYTHON_3_13 if python >= (3, 13) else DOCUMENTED[8, 5]
    return list(dict.fromkeys(of_8_5 if key == (8, 5) else DOCUMENTED[key] for key in minor))


def _judged(
    subject: str, found: str, release: Release | None, ranges: list[tuple[Range, Range | None]], advice: str
) -> Finding:
    """FAILS where every document says so, OK where every install guide takes it, else a note."""
    version = _version(found)
    if not ranges:
        return Finding(NOTE, subject, f"{found}; what CANN {release} takes is not on record here")
    if all(guide.holds(version) for guide, _ in ranges):
        return Finding(OK, subject, f"{found}, CANN {release} takes {ranges[0][0]}" if release else found)
    says = " or ".join(dict.fromkeys(str(one) for both in ranges for one in both if one))
    if release is None or any(one.holds(version) for both in ranges for one in both if one):
        return Finding(NOTE, subject, f"{found}; the documents of {_called(release)} say {says}")
    return Finding(FAILS, subject, f"{found}, CANN {release} takes {ranges[0][0]}; {advice}")


def _called(release: Release | None) -> str:
    return f"CANN {release}" if release else "CANN, of a release that is not known here,"


def _version(text: str) -> Version:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _probed(toolkit: Toolkit) -> dict[str, Any] | None:
    """Python's and NumPy's version, and which of PACKAGES are missing; None where there is no such Python."""
    try:
        result = subprocess.run(
            ["python3", "-c", _PROBE, *PACKAGES],
            env=toolkit.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
        )
        found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    return found


def _driver(toolkit: Toolkit) -> Finding:
    library = toolkit.driver()
    if library is not None:
        return Finding(OK, "driver", str(library))
    if toolkit.devlib is None:
        text = f"no {DRIVER_LIBRARY} here; where ATC does not find it: install the driver, or put the folder devlib of "
        return Finding(NOTE, "driver", f"{text}CANN's <arch>-linux on LD_LIBRARY_PATH")
    export = f"export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:{toolkit.devlib}"
    return Finding(NOTE, "driver", f"none here; convert.sh gives ATC the toolkit's stub, by hand: {export}")


def _operators(toolkit: Toolkit, chip: str) -> Iterator[Finding]:
    """Of the package with the chip's operators."""
    release, root = toolkit.release, toolkit.root
    if release is None or release.minor < OPS_SINCE or root is None:
        return
    series = next((name for name, chips in _OPS.items() if re.fullmatch(chips, chip, re.IGNORECASE)), None)
    wanted = f"Ascend-cann-{series or '<chip>'}-ops {release}"
    installed = record(root, OPS_RECORD).get("package_name", "")
    found = re.fullmatch(r"ascend-cann-(\w+)-ops", installed.lower())
    if found and series and found[1] != series:
        yield Finding(FAILS, "ops", f"{installed} is installed beside the toolkit, {chip} needs {wanted}")
    elif found and series:
        yield Finding(OK, "ops", installed)
    elif installed:
        yield Finding(NOTE, "ops", f"{installed} is installed; whether it is for {chip} is not on record here")
    else:
        yield _unrecorded(toolkit, root, series, wanted)


def _unrecorded(toolkit: Toolkit, root: Path, series: str | None, wanted: str) -> Finding:
    config = root / "opp/built-in/op_impl/ai_core/tbe/config"
    there = sorted(path.name for path in config.glob("ascend*"))
    if series and _OPS_FOLDERS.get(series, f"ascend{series}") in there:
        return Finding(OK, "ops", f"of {series} in {config}")
    text = f"no {OPS_RECORD} in {root}, and ATC needs the package {wanted} beside the toolkit"
    # Where the installer recorded the toolkit, it would have recorded the operators, too.
    sure = bool(record(root, TOOLKIT_RECORD)) and not there
    return Finding(FAILS if sure else NOTE, "ops", f"{text}; install it into {root.parent}")
