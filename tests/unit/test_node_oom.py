"""Who the OOM killer is kept away from, on this machine's own kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ckptfs
from ckptfs.doctor.checks import CAP_SYS_RESOURCE
from ckptfs.doctor.machine import Machine
from ckptfs.node.oom import OWN, SPARED, be_spared

ENTER = Path(ckptfs.__file__).parent / "translib/enter_cgroup.sh"


def test_lowered_where_the_kernel_allows_it_and_inherited():
    code = (
        "import subprocess; from ckptfs.node.oom import OWN, be_spared\n"
        "print(be_spared(), subprocess.check_output(['cat', str(OWN)], text=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    is_allowed = Machine().has_capability(CAP_SYS_RESOURCE)
    expected = min(int(OWN.read_text()), SPARED) if is_allowed else int(OWN.read_text())
    assert done.stdout.split() == [str(is_allowed or expected <= SPARED), str(expected)]


@pytest.mark.parametrize(("before", "after"), [("0", SPARED), ("300", SPARED), ("-1000", -1000)])
def test_never_raised(tmp_path, before, after):
    file = tmp_path / "oom_score_adj"
    file.write_text(f"{before}\n")
    assert be_spared(file)
    assert int(file.read_text()) == after


def test_what_criu_rebuilds_is_not_spared(tmp_path):
    # any score but 0 stands for the supervisor's: without a capability only a higher one can be had
    raised = f"echo 300 > {OWN}; exec sh {ENTER} {tmp_path} cat {OWN}"
    done = subprocess.run(["sh", "-c", raised], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
    assert (tmp_path / "cgroup.procs").read_text() == "0"
