"""A region is audited: its clients write down what they see while its processes are killed and stopped.

AUDIT_SEED is another seed than 1. Where the check fails, histories and logs stay, and it says where.
"""

import os
import pathlib
import shutil
import tempfile

import workload
from region import Region

SEED = os.environ.get("AUDIT_SEED", "1")


def test_what_clients_saw_is_what_was_promised():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tapeline-audit-"))
    with Region(folder, 3, 3, workload.SETS) as region:
        counts, wrong = workload.run(region, folder / f"seed-{SEED}", SEED)
    assert not wrong, f"seed {SEED}, histories and logs in {folder}\n{wrong}\n{counts}"
    shutil.rmtree(folder)
