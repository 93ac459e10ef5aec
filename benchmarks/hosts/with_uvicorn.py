"""uvicorn: an event loop."""

import sys

import serving

port = serving.free_port()
argv = [sys.executable, "-m", "uvicorn", "--port=%d" % port, "--log-level=error", "--lifespan=off", "app:asgi"]
serving.serve_and_ask(argv, port)
