"""A server that answers GET /slow late, GET /wait after an await, and all else at once: WSGI or ASGI, as it is told.

serving.py wsgi|wsgi-bare: by wsgiref, with giltrace's middleware or without. As a module it is `wsgi` and `asgi`, for
gunicorn and uvicorn, and with the middleware `told_wsgi` and `told_asgi`.
"""

import os
import sys
import time

SECONDS = float(os.environ.get("STALL_SECONDS", "0.4"))


def work():
    time.sleep(SECONDS)


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        work()
    start_response("200 OK", [("Content-Length", "5")])
    return [b"done\n"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        work()
    if scope["path"] == "/wait":
        import asyncio

        await asyncio.sleep(SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"done\n"})


def serve(application):
    from wsgiref.simple_server import make_server

    with make_server("127.0.0.1", 0, application) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if "bare" not in sys.argv[-1]:
    from giltrace.integrations.requests import ASGI, WSGI

    told_wsgi, told_asgi = WSGI(wsgi), ASGI(asgi)

if __name__ == "__main__":
    serve(wsgi if sys.argv[1] == "wsgi-bare" else told_wsgi)
