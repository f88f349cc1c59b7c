"""Write the lock's digest into the post-deploy script, so that a new lock makes a new environment.

Snakemake names an environment by the digest of its yaml and its post-deploy script, not by files
that the script reads.
"""

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent


def stamped(script: str, lock: bytes) -> str:
    """Return the script with the digest of ``lock`` in its marked line."""
    digest = hashlib.sha256(lock).hexdigest()
    return re.sub(r"(?m)^# lock sha256 .*$", f"# lock sha256 {digest}", script)


if __name__ == "__main__":
    path = FOLDER / "icmbench.post-deploy.sh"
    path.write_text(stamped(path.read_text(), (FOLDER / "requirements.lock").read_bytes()))
