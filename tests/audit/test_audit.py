"""A region is audited: its clients write down what they see while its processes are killed and stopped."""

import os
import tempfile

import workload
from region import Region

SEED = os.environ.get("AUDIT_SEED", "1")


def test_what_clients_saw_is_what_was_promised(tmp_path):
    with Region(tmp_path, 3, 3, workload.SETS) as region:
        histories = tempfile.mkdtemp(prefix="tapeline-audit-")
        counts, wrong = workload.run(region, f"{histories}/seed-{SEED}", SEED)
    assert not wrong, f"seed {SEED}, histories in {histories}\n{wrong}\n{counts}"
