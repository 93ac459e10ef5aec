"""Flask, with Werkzeug's server of one thread a request."""

import sys

import serving

SERVER = """
import sys, app, flask
site = flask.Flask("site")
site.add_url_rule("/<path>", view_func=lambda path: app.compute("/" + path), endpoint="compute")
site.run(port=int(sys.argv[1]), threaded=True)
"""

port = serving.free_port()
serving.serve_and_ask([sys.executable, "-c", SERVER, str(port)], port)
