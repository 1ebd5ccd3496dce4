"""Stand-in for `npu-smi info` and `npu-smi info -t board -i ID -c CHIP` (contract atc, chips).

STANDIN_NPU picks the machine: 310P3 (the default), 910B3 (no Device column), alarm, dash (no power reading), a3 (the
name is prefixed and incomplete), 950 (the same, and the board takes no chip's number; its fields are a guess), none (no
card), used (by another container).
"""

from __future__ import annotations

import os
import sys

_310P3 = """\
+-----------------------------------------------------------------------------------+
| npu-smi 23.0.0                   Version: 23.0.0                                  |
+-------------------+-----------------+---------------------------------------------+
| NPU     Name      | Health          | Power(W)   Temp(C)   Hugepages-Usage(page)  |
| Chip    Device    | Bus-Id          | AICore(%)  Memory-Usage(MB)                 |
+===================+=================+=============================================+
| 0       310P3     | {health:<15} | {power:<10} 42        0 / 0                  |
| 0       0         | 0000:01:00.0    | 0          1606 / 21527                     |
+===================+=================+=============================================+
"""
_910B3 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc1                 Version: 24.1.rc1                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 95.2        43                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3348 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 93.1        41                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3348 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
"""
_A3 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc3                 Version: 24.1.rc3                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 182.0       36                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3402 / 65536         |
+------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -           35                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 0           0    / 0          3200 / 65536         |
+===========================+===============+====================================================+
"""
_950 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.0                   Version: 25.5.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend950PR         | OK            | 150.0       60                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          1000 / 131072        |
+===========================+===============+====================================================+
"""
_TABLES = {
    "310P3": _310P3.format(health="OK", power="15.8"),
    "alarm": _310P3.format(health="Alarm", power="15.8"),
    "dash": _310P3.format(health="OK", power="-"),
    "910B3": _910B3,
    "a3": _A3,
    "950": _950,
}
_FAILURES = {
    "none": "dcmi module initialize failed. ret is -8005",
    "used": "dcmi model initialized failed, because the device is used. ret is -8020",
}
# On A3 the name on `--soc_version` is Chip Name, an underscore, NPU Name; elsewhere Chip Type and Chip Name.
_A3_BOARD = {"NPU ID": "0", "NPU Name": "9392", "Chip ID": "0", "Chip Name": "Ascend910"}
_950_BOARD = {"NPU ID": "0", "Chip Name": "Ascend950PR", "NPU Name": "9589"}


def _board(machine: str) -> dict[str, str]:
    if machine in ("a3", "950"):
        return _A3_BOARD if machine == "a3" else _950_BOARD
    name = machine if machine == "910B3" else "310P3"
    return {"NPU ID": "0", "Chip ID": "0", "Chip Type": "Ascend", "Chip Name": name}


def _fail(message: str) -> int:
    print(message)
    return 1


def main(arguments: list[str]) -> int:
    """Prints what the real program prints for the two commands of the contract; anything else is an error."""
    machine = os.environ.get("STANDIN_NPU", "310P3")
    if machine in _FAILURES:
        return _fail(_FAILURES[machine])
    if arguments == ["info"]:
        print(_TABLES[machine])
        return 0
    chip = [] if machine == "950" else ["-c", "0"]
    if arguments != ["info", "-t", "board", "-i", "0", *chip]:
        return _fail("Error parameter. Please use 'npu-smi --help' to query the usage.")
    for name, value in _board(machine).items():
        print(f"        {name:<31}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
