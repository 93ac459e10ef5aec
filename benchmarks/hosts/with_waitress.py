"""waitress: a pool of threads."""

import sys

import serving

port = serving.free_port()
serving.serve_and_ask([sys.executable, "-m", "waitress", "--listen=127.0.0.1:%d" % port, "app:wsgi"], port)
