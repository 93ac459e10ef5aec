"""A WSGI and an ASGI application, and a Django project, that count and tell: what is asked for, /hold or /metrics."""

import os
import time


def hold():
    for _ in range(50):
        time.sleep(0)
    return str(os.getpid())


def wsgi(environ, start_response):
    from prometheus_client import generate_latest

    if environ["PATH_INFO"] == "/end":
        os._exit(1)
    body = generate_latest(registry()) if environ["PATH_INFO"] == "/metrics" else hold().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


_registry = []


def registry():
    if not _registry:
        from prometheus_client import CollectorRegistry

        import giltrace.metrics

        made = CollectorRegistry()
        made.register(giltrace.metrics.PrometheusCollector())
        _registry.append(made)
    return _registry[0]


def fastapi():
    from fastapi import FastAPI

    from giltrace.integrations import asgi

    app = FastAPI(lifespan=asgi.lifespan)
    app.get("/hold")(hold)
    app.mount("/metrics", asgi.metrics_app())
    return app


def plain():
    from giltrace.integrations import asgi

    tells = asgi.metrics_app()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["path"].startswith("/metrics"):
            return await tells(scope, receive, send)
        body = hold().encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return asgi.counted(app)


def django():
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    import giltrace

    settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["giltrace.integrations.django.Giltrace"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="none",
    )
    application = get_wsgi_application()
    import giltrace.integrations.django

    urlpatterns.append(path("metrics", giltrace.integrations.django.metrics))
    urlpatterns.append(path("hold", lambda request: HttpResponse(hold())))
    return application


urlpatterns = []
