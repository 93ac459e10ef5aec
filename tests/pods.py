"""An image from the wheel, and pods of it: Podman applies manifests of Kubernetes, without a cluster or a network."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Debian's Python as an image, as `.ci/setup image` makes it.
BASE = Path(os.environ.get("GILTRACE_IMAGE", "/opt/giltrace-image")) / "base.tar"
_BASE_NAME = "localhost/giltrace-base"
#: Where packages come from, which the machine may have settings of its own for.
_SETTINGS = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/resolv.conf")
_TOOLS = ("podman", "buildah", "runc")
_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}


def available() -> bool:
    """Whether images can be built and pods run here."""
    return os.geteuid() == 0 and BASE.exists() and all(map(shutil.which, _TOOLS))


class Pods:
    """Images and pods below `folder`: nothing of the machine's own is touched. `close` ends what runs."""

    def __init__(self, folder: Path) -> None:
        # A limit may not be raised, not even by root in all places.
        limits = [f"{name}={min(resource.getrlimit(kind)[0], 4096)}" for name, kind in _LIMITS.items()]
        limits = [f"{limit}:{limit.partition('=')[2]}" for limit in limits]
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        (folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = {json.dumps(limits)}\ncgroupns = "host"\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'tmp_dir = "{folder}/tmp"\n[network]\nnetwork_config_dir = "{folder}/networks"\n'
        )
        self._folder = folder
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        self.run("podman", "import", "--quiet", str(BASE), _BASE_NAME)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman or buildah to its end."""
        environment = self._environment
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done

    def build(self, name: str, dockerfile: Path, context: Path) -> None:
        """Build an image on Debian's Python: `dockerfile` takes what it begins with as the argument BASE."""
        settings = [word for path in _SETTINGS if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
        how = ["--isolation", "oci", "--runtime", "runc", "--network", "host", "--build-arg", f"BASE={_BASE_NAME}"]
        self.run("buildah", "build", *how, *settings, "-t", f"localhost/{name}", "-f", str(dockerfile), str(context))

    @contextmanager
    def playing(self, manifest: dict[str, Any]) -> Iterator[None]:
        """Apply a manifest, with a network of the pod's own that leads nowhere."""
        path = self._folder / "manifest.yaml"
        path.write_text(json.dumps(manifest))  # JSON is YAML
        try:
            self.run("podman", "play", "kube", "--network", "none", str(path))
            yield
        finally:
            self.run("podman", "play", "kube", "--down", str(path))
