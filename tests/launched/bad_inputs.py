"""Runs the command line many times over on one set of ranks, each time with something wrong.

`bad_inputs.py CASES.json`.

The ranks go on together after each case; if one of them did not, the job would hang or end here.
What a rank says goes to a file of its own, `CASES.json.RANK`: launchers mix the ranks' lines as
they come.
"""

import json
import os
import sys
from pathlib import Path

import hvd_xai.keras as hvd
from hvd_xai.cli.main import main

cases = json.loads(Path(sys.argv[1]).read_text())
world = hvd.init()
said = os.open(f"{sys.argv[1]}.{world.rank}", os.O_WRONLY | os.O_CREAT)
for stream in (1, 2):
    os.dup2(said, stream)
for name, words in cases.items():
    sys.argv = ["hvd-xai", *words]
    code: object = 0
    sys.stderr.write(f"\n=== begins {name}\n")
    try:
        main()
    except SystemExit as end:
        code = end.code
    world.agree(f"ending '{name}'")
    sys.stderr.write(f"\n=== ended {name} with {code}\n")
