"""celery: a worker with a pool of processes, which is told to end by SIGTERM once its tasks are done."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from celery import Celery
from celery.signals import worker_ready

TASKS = 160

app = Celery("with_celery", broker="memory://")
app.conf.update(worker_hijack_root_logger=False, worker_log_format="%(message)s", worker_redirect_stdouts=False)
done = Path(os.environ.get("HOST_SCRATCH", "."), "done")


@app.task
def work(number):
    total = sum(i * number for i in range(200000))
    with open(done, "a") as file:
        file.write("%d %d\n" % (number, total))


def end():
    while len(done.read_text().splitlines()) < TASKS:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


@worker_ready.connect
def begin(**_):
    done.write_text("")
    for number in range(TASKS):
        work.delay(number)
    threading.Thread(target=end, daemon=True).start()


if __name__ == "__main__":
    options = ["--quiet", "worker", "--concurrency=2", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
    status = 0
    try:
        app.worker_main(options)
    except SystemExit as ended:
        status = ended.code
    print(sorted(done.read_text().splitlines())[::10], status)
    sys.exit(status)
