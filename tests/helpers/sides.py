"""Two folders in which owner and cloud run commands, with a record of what their processes import and open."""

import os
import subprocess

from helpers.command import ROOT

# Python runs a module of this name when it starts; it records every import and every opened file.
RECORDER = """
import os, sys
log = open(os.environ["AUDIT_LOG"], "a", buffering=1)
sys.addaudithook(lambda event, args: event in ("open", "import") and log.write(f"{event} {args[0]}\\n"))
"""


class Side:
    """A folder in which commands are run, with a record of what their processes import and open."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        (recorder := folder.parent / f"recorder of {folder.name}").mkdir()
        (recorder / "sitecustomize.py").write_text(RECORDER)
        self._log = recorder / "log"
        self._environment = os.environ | {"PYTHONPATH": f"{recorder}:{ROOT}", "AUDIT_LOG": str(self._log)}
        self.printed = ""

    def run(self, command, expected=0):
        """Runs a shell command line."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=300
        )
        self.printed += done.stdout + done.stderr
        assert done.returncode == expected, done.stderr
        return done.stderr if expected else done.stdout

    @property
    def record(self):
        return self._log.read_text(errors="replace").splitlines()
