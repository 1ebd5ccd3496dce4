"""Where CANN lies on a host, which release it is, and what of the driver is there."""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path

import pytest

from ResNeSt.common import cann, cann_libraries
from ResNeSt.common.cann import Toolkit, parse_release
from ResNeSt.common.errors import PipelineError

ARCH = f"{platform.machine()}-linux"


def made(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(path: Path) -> Path:
    made(path, "#!/bin/sh\n").chmod(0o755)
    return path


# Releases


IN_ORDER = [
    *(
        "5.1.RC2",
        "6.0.1",
        "7.0.0.alpha003",
        "7.0.RC1",
        "7.0.0",
        "7.0.1.1",
        "8.0.0.beta1",
        "8.0.RC1",
        "8.0.RC3",
        "8.0.0",
    ),
    *("8.1.RC1", "8.3.RC1", "8.3.RC2", "8.5.0.alpha001", "8.5.0", "8.5.1", "8.10.0", "9.0.0-beta.1", "9.0.0-beta.2"),
    *("9.0.0", "9.1.0-beta3", "9.1.0", "9.10.0", "10.0.0"),
]


def test_releases_are_ordered_as_numbers_with_betas_before_the_release() -> None:
    releases = [parse_release(text) for text in IN_ORDER]
    assert all(first and second and first < second for first, second in itertools.pairwise(releases))
    assert [str(release) for release in releases] == IN_ORDER


def test_a_release_s_first_two_numbers_are_what_documents_go_by() -> None:
    found = [parse_release(text) for text in ("8.0.RC1", "cann-8.5.0", "9.0.0-beta.1", "CANN-9.1", "8.10.2")]
    assert [release and release.minor for release in found] == [(8, 0), (8, 5), (9, 0), (9, 1), (8, 10)]
    assert [release and release.is_final for release in found] == [False, True, False, True, True]


@pytest.mark.parametrize(
    "text",
    ["", "latest", "cann", "3.12", "3.12.1", "22.04", "310", "cann-1.5", "x86_64-linux", "8", "8.", "v8.0", "8..0"],
)
def test_other_names_are_no_release(text: str) -> None:
    assert parse_release(text) is None


@pytest.mark.parametrize(
    ("path", "release"),
    [
        ("usr/local/Ascend/ascend-toolkit/8.0.RC1/bin/atc", "8.0.RC1"),
        ("opt/py3.9/cann-1.5/Ascend/ascend-toolkit/5.1.RC2/x86_64-linux/bin/atc", "5.1.RC2"),
        ("opt/3.9/Ascend/7.0.0/compiler/bin/atc", "7.0.0"),
        ("opt/Ascend/8.5.0.alpha001/bin/atc", "8.5.0.alpha001"),
        ("usr/local/Ascend/cann-8.5.0/bin/atc", "8.5.0"),
        ("usr/local/Ascend/cann-9.0.0-beta.1/x86_64-linux/bin/atc", "9.0.0-beta.1"),
        ("home/me/Ascend/9.0.0-beta.1/bin/atc", "9.0.0-beta.1"),
        ("home/me/.pyenv/versions/3.12.1/lib/python3.12/site-packages/ascend/cann-9.1.0/bin/atc", "9.1.0"),
        ("home/me/.pyenv/versions/3.12.1/bin/atc", None),
        ("opt/Ascend-8.1/310/latest/bin/atc", None),
        ("opt/Ascend/bin/8.0", None),  # a file of this name
    ],
)
def test_the_release_is_that_of_the_folder_nearest_to_atc(path: str, release: str | None) -> None:
    found = Toolkit(f"/{path}", {}).release
    assert (found and str(found)) == release


def test_the_release_is_that_of_the_file_behind_links(tmp_path: Path) -> None:
    real = program(tmp_path / "ascend-toolkit/8.0.RC1/bin/atc")
    link = tmp_path / "7.0.0/atc"
    link.parent.mkdir()
    link.symlink_to(real)
    assert str(Toolkit(str(link), {}).release) == "8.0.RC1"


@pytest.mark.parametrize("inside", ["bin/atc", "compiler/bin/atc", f"{ARCH}/bin/atc"])
def test_what_the_installer_recorded_counts_before_the_folder_s_name(inside: str, tmp_path: Path) -> None:
    atc = program(tmp_path / "7.0.0/Ascend/cann" / inside)
    text = "package_name=Ascend-cann-toolkit\nversion=9.0.0-beta.2\ninnerversion=V100R001C23\n"
    made(tmp_path / f"7.0.0/Ascend/cann/{ARCH}/ascend_toolkit_install.info", text)
    toolkit = Toolkit(str(atc), {})
    assert toolkit.root == tmp_path / "7.0.0/Ascend/cann"
    assert str(toolkit.release) == "9.0.0-beta.2"


# Install trees


def install(root: Path, folder: str) -> Path:
    """A release in a folder of its own; its script puts its atc on PATH."""
    home = root / folder
    program(home / "bin/atc")
    return made(home / "set_env.sh", f'export PATH="{home}/bin:$PATH"\n')


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without CANN on PATH or in variables; what install_roots names is in this folder."""
    for variable in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(cann, "install_roots", lambda: [tmp_path / "usr/local/Ascend", tmp_path / "home/Ascend"])
    return tmp_path


@pytest.mark.parametrize("root", ["usr/local/Ascend", "home/Ascend"])
@pytest.mark.parametrize(
    "folder", ["cann-8.5.0", "cann-9.0.0", "cann-9.0.0-beta.1", "9.0.0-beta.1", "cann", "ascend-toolkit/8.0.RC1"]
)
def test_a_toolkit_is_found_wherever_its_installer_puts_it(root: str, folder: str, bare: Path) -> None:
    assert cann.find_toolkit() is None
    install(bare / root, folder)
    found = cann.find_toolkit()
    assert found is not None
    assert found.atc == str(bare / root / folder / "bin/atc")
    assert str(found.release) == (folder.split("/")[-1].replace("cann-", "") if folder != "cann" else "None")


def test_the_toolkit_of_cann_8_3_and_older_is_found_by_the_script_beside_latest(bare: Path) -> None:
    home = bare / "home/Ascend/ascend-toolkit"
    program(home / "8.3.RC1/bin/atc")
    (home / "latest").symlink_to("8.3.RC1")
    made(home / "set_env.sh", f'export PATH="{home}/latest/bin:$PATH"\n')
    found = cann.find_toolkit()
    assert found is not None
    assert str(found.release) == "8.3.RC1"


def test_of_several_the_newest_is_taken_wherever_it_lies(bare: Path) -> None:
    local, own = bare / "usr/local/Ascend", bare / "home/Ascend"
    folders = [(local, "cann-8.5.0"), (own, "cann-8.10.0"), (own, "9.0.0-beta.1"), (local, "cann-9.0.0")]
    for root, folder in folders:
        install(root, folder)
        found = cann.find_toolkit()
        assert found is not None
        assert found.atc == str(root / folder / "bin/atc")
    (local / "cann").symlink_to("cann-8.5.0")  # a link to one of them is no other
    made(local / "ascend-toolkit/set_env.sh", "exit 1\n")  # of no release that can be told
    scripts = cann.installed_scripts(cann.install_roots())
    assert [path.parent.name for path in scripts[:3]] == ["cann-9.0.0", "9.0.0-beta.1", "cann-8.10.0"]
    assert len(scripts) == 5
    assert scripts[-1].parent.name == "ascend-toolkit"


def test_a_variable_that_is_set_counts_before_what_is_installed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bare / "usr/local/Ascend", "cann-9.0.0")
    install(bare / "elsewhere", "cann-8.5.0")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(bare / "elsewhere/cann-8.5.0"))
    found = cann.find_toolkit()
    assert found is not None
    assert str(found.release) == "8.5.0"


def test_a_release_without_atc_is_passed_over(bare: Path) -> None:
    made(bare / "usr/local/Ascend/cann-9.1.0/set_env.sh")
    install(bare / "usr/local/Ascend", "cann-8.5.0")
    found = cann.find_toolkit()
    assert found is not None
    assert str(found.release) == "8.5.0"


def test_the_default_folders_are_root_s_the_user_s_and_this_python_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    roots = [str(path) for path in cann.install_roots()]
    assert roots[:2] == ["/usr/local/Ascend", "/home/me/Ascend"]
    assert roots[2].endswith("site-packages/ascend")


# Programs and libraries


@pytest.mark.parametrize("folder", ["bin", "tools/profiler/bin"])
@pytest.mark.parametrize("known_by", ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH", "PATH", "its script"])
def test_a_program_off_path_is_found_in_the_release_however_that_is_known(
    known_by: str, folder: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cann.find_program("msprof") is None
    home = bare / ("usr/local/Ascend/cann-9.0.0" if known_by == "its script" else "elsewhere/cann-9.0.0")
    made(home / ARCH / "x")
    program(home / "bin/atc")
    wanted = program(home / folder / "msprof")
    if known_by == "its script":
        made(home / "set_env.sh", f'export ASCEND_HOME_PATH="{home}"\n')
    else:
        monkeypatch.setenv(known_by, f"{home / 'bin'}:/usr/bin:/bin" if known_by == "PATH" else str(home))
    assert cann.find_program("msprof") == str(wanted)


@pytest.mark.parametrize("package", ["nnrt", "nnae", "ascend-toolkit", "cann-9.0.0"])
@pytest.mark.parametrize("root", ["usr/local/Ascend", "home/Ascend"])
def test_the_library_that_runs_models_is_found_with_any_package_that_brings_it(
    root: str, package: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert not cann_libraries.has_library(cann_libraries.environment())
    made(bare / root / "cann-9.9.0/set_env.sh")  # newer, and without it
    home = bare / root / package
    made(home / "latest/lib64/libascendcl.so")
    script = made(home / "set_env.sh", f'export LD_LIBRARY_PATH="{home}/latest/lib64:$LD_LIBRARY_PATH"\n')
    assert cann_libraries.has_library(cann_libraries.environment())
    told = cann_libraries.not_imported("ImportError: libascendcl.so: cannot open shared object file: No such file")
    assert told is not None
    assert told.endswith(f"run: source {script}")


# The driver's library


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolkit:
    """With a stub of the driver's library, on a machine without a driver."""
    monkeypatch.setattr(cann, "DRIVER_FOLDERS", [str(tmp_path / "driver/lib64/driver")])
    made(tmp_path / f"cann-9.0.0/{ARCH}/devlib/libascend_hal.so")
    atc = program(tmp_path / "cann-9.0.0/bin/atc")
    return Toolkit(str(atc), {"LD_LIBRARY_PATH": "/a:/b", "KEPT": "1"})


def test_without_a_driver_atc_gets_the_toolkit_s_stub_after_all_else(toolkit: Toolkit) -> None:
    devlib = f"{toolkit.root}/{ARCH}/devlib"
    assert toolkit.driver() is None
    assert toolkit.compiling_environment() == {"LD_LIBRARY_PATH": f"/a:/b:{devlib}", "KEPT": "1"}
    assert Toolkit(toolkit.atc, {}).compiling_environment() == {"LD_LIBRARY_PATH": devlib}


def test_a_driver_or_a_stub_that_is_found_already_changes_nothing(toolkit: Toolkit, tmp_path: Path) -> None:
    path = os.pathsep.join(["/a", f"{toolkit.root}/{ARCH}/devlib"])
    assert Toolkit(toolkit.atc, {"LD_LIBRARY_PATH": path}).compiling_environment() == {"LD_LIBRARY_PATH": path}
    made(tmp_path / "driver/lib64/driver/libascend_hal.so")
    assert toolkit.compiling_environment() is toolkit.environment


def test_a_toolkit_without_a_stub_runs_in_its_environment_as_it_is(toolkit: Toolkit) -> None:
    (Path(toolkit.atc).parents[1] / ARCH / "devlib/libascend_hal.so").unlink()
    (Path(toolkit.atc).parents[1] / ARCH / "devlib").rmdir()
    assert toolkit.compiling_environment() is toolkit.environment


def test_a_set_env_sh_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = made(tmp_path / "set_env.sh", "read -r _ < <(exec sleep 5)\n")
    monkeypatch.setattr(cann, "SECONDS", 0.2)
    with pytest.raises(PipelineError, match=r"set_env\.sh: does not end in 0\.2 seconds"):
        cann.sourced(script)
