"""A walker whose module starts a thread as it is imported: forking beside it would not be safe."""

from __future__ import annotations

import threading
import time

from tests.helpers.bots.scripted import Walker

threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


def make_agent():
    return Walker()
