"""This user's own folder of the machine: in the temporary one (`TMPDIR`), which all users share.

Anybody can guess its name and be there first, so it is used only where it is this user's and nobody else may write or
read in it: what lies there is loaded as a model, and believed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cluster.errors import UserError

_MODE = 0o700


def folder() -> Path:
    """Made when it is not there. Raises UserError where somebody else has it, or may look into it."""
    place = Path(tempfile.gettempdir()) / f"rehone-{os.getuid()}"
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.mkdir(mode=_MODE)
    except FileExistsError:
        found = place.lstat()  # a link is nobody's folder, wherever it leads
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise UserError(
                "is to be a folder of your own that nobody else may use (mode 700), and is not",
                where=str(place),
                mend="see who has made it, remove it, or set TMPDIR to another folder",
            ) from None
    return place
