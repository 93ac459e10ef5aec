"""What the servers serve: some computing, as WSGI and as ASGI."""


def compute(path):
    return str(sum(i * len(path) for i in range(20000)))


def wsgi(environ, start_response):
    body = compute(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = compute(scope["path"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
