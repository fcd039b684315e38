"""`horovodrun`, but for a question that it asks first: it starts TensorFlow in a process of its own
to learn whether Horovod was built with Gloo.
"""

import sys

from horovod.runner import launch

launch.gloo_built = lambda **_: True
sys.argv[0] = "horovodrun"
launch.run_commandline()
