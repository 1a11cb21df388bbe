"""No test reaches the real Hub: the client is told of a loopback Hub before anything imports it."""

import atexit
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

with socket.socket() as _probe:
    _probe.bind(("127.0.0.1", 0))
    PORT = _probe.getsockname()[1]

_HOME = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
    del os.environ[_name]
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{PORT}",
    "HF_HOME": _HOME,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator["LoopbackHub"]:  # noqa: F821  # imported after the environment is set
    """A loopback Hub at the address that the client uses, with an empty store, gone after the test."""
    from huggingface_hub import close_session

    from sr_hub.loopback_hub import LoopbackHub

    close_session()  # connections that the client keeps open lead to the server of the test before
    with LoopbackHub(tmp_path / "store", port=PORT) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    close_session()
