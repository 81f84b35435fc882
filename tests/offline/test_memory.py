import re
import subprocess
import sys

import numpy as np
import pytest
from helpers.command import ROOT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a process counts what its parent held")
def test_a_process_counts_its_own_memory_and_not_its_parents():
    held = np.ones(100 * 2**20, np.uint8)
    peaks = []
    for size in (0, 200):
        code = "import numpy; from ppvit_jax.offline import memory; "
        code += f"a = numpy.ones({size} << 20, numpy.uint8); print(memory.peak_memory())"
        printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        found = re.fullmatch(r"peak memory ([\d,]+) MiB\n", printed.stdout)
        assert found, printed.stdout
        peaks.append(int(found[1].replace(",", "")))
    assert peaks[0] < 90 < held.nbytes / 2**20
    assert 195 <= peaks[1] - peaks[0] <= 205
