"""uWSGI: a C program that embeds Python and forks workers with threads."""

import serving

port = serving.free_port()
options = ["--master", "--processes=2", "--threads=4", "--enable-threads", "--die-on-term", "--disable-logging"]
serving.serve_and_ask(
    [serving.beside("uwsgi"), *options, "--http-socket=127.0.0.1:%d" % port, "--module=app:wsgi"], port
)
