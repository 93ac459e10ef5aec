"""gunicorn: two forked workers with four threads each."""

import serving

port = serving.free_port()
options = ["--workers=2", "--threads=4", "--bind=127.0.0.1:%d" % port, "--log-level=error", "app:wsgi"]
serving.serve_and_ask([serving.beside("gunicorn"), *options], port)
