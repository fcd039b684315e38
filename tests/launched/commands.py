"""Runs commands one after the other on one set of ranks.

`commands.py COMMANDS.json`, which has the words of each command by its name. As in a shell they
are, first, changes of the environment, `NAME=VALUE`, for this command alone, then `hvd-xai` or the
path of a script, then its arguments.

Starting Horovod and TensorFlow takes longer than most commands do. The ranks go on together after
each; if one of them did not, the job would hang or end here. What a rank says goes to a file of its
own, `COMMANDS.json.RANK`: launchers mix the ranks' lines as they come.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import keras

import hvd_xai.keras as hvd
from hvd_xai.cli.main import main


def run(words: list[str]) -> object:
    """Runs a command as if it were alone; returns the code it ends with."""
    before = dict(os.environ)
    while "=" in words[0]:
        name, _, os.environ[name] = words[0].partition("=")
        words = words[1:]
    sys.argv = words
    try:
        if words[0] == "hvd-xai":
            main()
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code
    finally:
        sys.stdout.flush()
        os.environ.clear()
        os.environ.update(before)
        keras.backend.clear_session()  # or the next model's layers would be named on
    return 0


commands = json.loads(Path(sys.argv[1]).read_text())
world = hvd.init()
said = os.open(f"{sys.argv[1]}.{world.rank}", os.O_WRONLY | os.O_CREAT)
for stream in (1, 2):
    os.dup2(said, stream)
for name, words in commands.items():
    sys.stderr.write(f"\n=== begins {name}\n")
    code = run(words) or 0
    world.agree(f"ending '{name}'")
    sys.stderr.write(f"\n=== ended {name} with {code}\n")
