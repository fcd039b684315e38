"""Runs the command line many times over on one set of ranks, each time with something wrong: `bad_inputs.py CASES.json`.

The ranks go on together after each case; if one of them did not, the job would hang or end here.
"""

import json
import sys
from pathlib import Path

import hvd_xai.keras as hvd
from hvd_xai.cli.main import main

cases = json.loads(Path(sys.argv[1]).read_text())
world = hvd.init()
for name, words in cases.items():
    sys.argv = ["hvd-xai", *words]
    code: object = 0
    sys.stderr.write(f"\n=== rank {world.rank} begins {name}\n")
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stderr.write(f"\n=== rank {world.rank} ended {name} with {code}\n")
    codes = world.allgather("comparing exit codes", str(code))
    if world.is_root:
        sys.stdout.write(f"\n=== all {name} {','.join(map(str, codes))}\n")
        sys.stdout.flush()
