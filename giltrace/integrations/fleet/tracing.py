"""Record all workers of a cluster at once, and make one recording of it."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import giltrace
from giltrace import installation
from giltrace.errors import OutputError, TargetError, UsageError
from giltrace.integrations.fleet import gather, session
from giltrace.integrations.fleet.cluster import Begin, Bounds, Cluster
from giltrace.integrations.fleet.gather import Member
from giltrace.recording.fleet import Fleet, Part, part_name, write_fleet
from giltrace.recording.folder import SUFFIX, RecordingFolder, Remedies, claim_numbered
from giltrace.recording.meta import Meta

#: So often workers are asked how they are getting on, and those that have joined are found.
_POLL_SECONDS = 1.0
#: So long somebody is waited for that can read what a worker has left: its nanny starts another.
_PATIENCE_SECONDS = 6.0
_AT_ONCE = 4
MOST_BYTES = 2 << 30

_REMEDIES = Remedies(
    taken="choose another name, or replace it with force=True", unwritable="choose a place that you may write to"
)

Telling = Callable[[str], None]


class FleetTracing:
    """What `record` returns without a time: a context, for once.

    `told` has in words what could not be recorded, `partly` what of workers that did not come to the end.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: Path | None = None,
        *,
        stacks: int = 128,
        force: bool = False,
        remedies: Remedies = _REMEDIES,
        most_bytes: int = MOST_BYTES,
        telling: Telling = lambda _: None,
    ) -> None:
        self.told: list[str] = []
        self.partly: list[str] = []
        self._cluster, self._name, self._force, self._remedies = cluster, name, force, remedies
        self._token = uuid.uuid4().hex
        self._given = Begin(self._token, stacks, most_bytes, giltrace.__version__)
        self._members: dict[tuple[str, str], Member] = {}
        self._clocks: dict[str, Bounds] = {}
        self._able: dict[str, bool] = {}
        self._over, self._hurried = threading.Event(), threading.Event()
        self._telling = telling
        self._asks = threading.Thread(target=self._ask_on, name="giltrace-fleet", daemon=True)

    def __enter__(self) -> giltrace.Recording:
        from giltrace.timeline.load import load
        from giltrace.timeline.model import Timeline

        self.begin()

        def read() -> Timeline:
            if not self._over.is_set():
                raise UsageError(f"{self.path} is still being written", "read it after the block that it is of")
            return load(self.path)

        return giltrace.Recording(self.path, read)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Begin; raises as `record`."""
        try:
            self._find_workers()
            self._folder = self._claim()
            self.path = self._folder.path
            try:
                self._start()
            except BaseException:
                self._folder.abandon()
                self._leave()
                raise
        except BaseException:
            self._cluster.close()
            raise
        self._asks.start()

    @property
    def workers(self) -> int:
        """How many workers have been recorded so far."""
        return sum(len(member.about["workers"]) for member in self._members.values())

    def _claim(self) -> RecordingFolder:
        if self._name is None:
            return claim_numbered(Path(self._cluster.name + SUFFIX), self._remedies)
        path = self._name.with_name(self._name.name.removesuffix(SUFFIX) + SUFFIX)
        return RecordingFolder(path, force=self._force, remedies=self._remedies)

    def _find_workers(self) -> None:
        """Ask the workers whether they can be recorded; raises `TargetError` if none can."""
        addresses = self._cluster.workers()
        none = None if addresses else self._cluster.no_workers()
        if none is not None:
            raise TargetError(*none)
        problems = self._look_at(addresses)
        if problems and not any(self._able.values()):
            raise problems[0]
        self.told += [*self._cluster.left_out(), *(problem.message for problem in problems)]

    def _look_at(self, addresses: list[str]) -> list[TargetError]:
        """Find out which of these workers can be recorded; why the others cannot."""
        problems = []
        for address, answer in self._cluster.ask_all(session.probe, addresses).items():
            problem = _unable(address, answer)
            # Who did not answer may be busy, or starting: it is asked again.
            if problem is None or not isinstance(answer, TimeoutError):
                self._able[address] = problem is None
            problems += [problem] if problem is not None else []
        return problems

    def _start(self) -> None:
        self._meta = Meta.begin(giltrace.__version__, ["giltrace", self._cluster.name, self._cluster.address])
        self._meta.write(self.path)
        try:
            self._cluster.begin(self._given)
        except Exception as error:
            # Of one worker, which may have ended meanwhile: each is asked now.
            self.told.append(f"a worker could not begin: {error}")
        refused = self._renew()
        if not self._members and (refused or self._able):
            raise refused[0] if refused else TargetError("no worker began to record", "; ".join(self.told))
        self.told += [one.message for one in refused]
        self._measure(self._ready())
        self._folder.keep()

    def _renew(self) -> list[TargetError]:
        """Ask all workers how they are getting on; who refused."""
        refused = []
        for address, about in self._cluster.ask_all(session.status, self._ready(), self._token).items():
            if isinstance(about, dict) and about["problem"] is not None:
                self._able[address] = False
                message, remedy = about["problem"]
                refused.append(TargetError(f"worker {address}: {message}", remedy))
            elif isinstance(about, dict):
                self._saw(about)
        return refused

    def _ready(self) -> list[str]:
        """The workers that there are now and can be recorded; of those that are new, it is found out."""
        addresses = self._cluster.workers()
        fresh = [address for address in addresses if address not in self._able]
        if fresh:
            self.told += [problem.message for problem in self._look_at(fresh)]
        return [address for address in addresses if self._able.get(address)]

    def _saw(self, about: dict[str, Any]) -> None:
        member = self._members.setdefault((about["clock"], about["place"]), Member(about))
        member.about = about

    def _ask_on(self) -> None:
        """Let the workers know that the client is there, until it is over."""
        while not self._over.wait(_POLL_SECONDS):
            try:
                self.told += [one.message for one in self._renew()]
            except Exception:
                # The scheduler may be back soon; if not, the end tells.
                continue
            tasks, size = (sum(one.about[what] for one in self._members.values()) for what in ("tasks", "bytes"))
            self._telling(f"{self.workers} workers  {tasks:,} tasks  {size / 1e6:,.0f} MB")

    def _measure(self, ready: list[str]) -> None:
        """Compare the clock of each machine with this one's, by the first worker there that answers."""
        done = set[str]()
        readers = self._cluster.readers(ready)
        for (clock, _), member in self._members.items():
            for address in member.about["workers"]:
                asked = self._cluster.at(address)
                if clock in done or asked not in readers:
                    continue
                found = self._cluster.measure(asked)
                if found is not None:
                    self._clocks[clock] = found.also(self._clocks.get(clock, found))
                    done.add(clock)

    def end(self) -> None:
        """End, and bring all home; raises as `record`."""
        self._over.set()
        self._asks.join()
        try:
            self._meta.end_ns = time.monotonic_ns()
            self._stop()
            parts = self._bring()
            self._meta.state, self._meta.ended = "complete", ""
            self._meta.write(self.path)
            write_fleet(self.path, Fleet(tuple(parts), tuple(dict.fromkeys(self.told))))
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}", self._remedies.unwritable) from None
        finally:
            self._leave()
            self._cluster.close()
        if not parts:
            shutil.rmtree(self.path, ignore_errors=True)
            raise TargetError(
                f"nothing could be brought home: {'; '.join(self.told)}", "see whether the cluster and its workers live"
            )

    def _stop(self) -> None:
        """End the recording in all workers, and find out who has what they left."""
        try:
            ready = self._ready()
            answers = self._cluster.ask_all(session.stop, ready, self._token)
        except Exception as error:
            self.told.append(f"the cluster does not answer: {error}")
            answers, ready = {}, []
        for address, about in answers.items():
            if isinstance(about, dict) and about["problem"] is None:
                self._saw(about)
                member = self._members[about["clock"], about["place"]]
                member.holders.append(address)
                if about["ended"] != session.ASKED:
                    member.told = f"recorded in part only: {about['ended']}"
        self._measure(ready)
        self._find_left(ready)

    def _find_left(self, addresses: list[str]) -> None:
        """Find who can read what those have left that are gone; a worker may come for that yet."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            for key, left in gather.holders(self._cluster, self._token, self._cluster.readers(addresses)).items():
                member = self._members.setdefault(key, left)
                if not member.holders:
                    member.holders = left.holders
                    member.told = "it ended during the recording: what is here goes up to then"
            gone = [one for one in self._members.values() if not one.holders]
            if not gone or time.monotonic() > until or not self._cluster.readers(addresses):
                break
            time.sleep(0.5)
            addresses = self._ready()
        for member in gone:
            member.told = "it ended during the recording"

    def _bring(self) -> list[Part]:
        """Bring the recordings home; the parts that there are."""
        members = sorted(self._members.values(), key=lambda one: (one.about["host"], one.name, one.place))
        named = [(member, part_name(number)) for number, member in enumerate(members)]

        def bring(one: tuple[Member, str]) -> bool:
            member, name = one
            there = member.about["clock"] in self._clocks
            return there and gather.bring(self._cluster, self._token, member, self.path / name, self._hurried)

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            asked = [threads.submit(bring, one) for one in named]
            try:
                wait(asked)
            except KeyboardInterrupt:
                self._hurried.set()
                self.told.append("interrupted while it was brought home")
        brought = [one.result() for one in asked]
        parts = []
        for (member, name), there in zip(named, brought, strict=True):
            about, clock = member.about, self._clocks.get(member.about["clock"])
            if not there:
                self.told.append(f"worker {_called(member)}: {member.told}; what it had recorded could not be had")
            elif member.told:
                self.partly.append(f"worker {_called(member)}: {member.told}")
            if there and clock is not None:
                place = (about["host"], about["pid"], about["clock"], clock.offset_ns, clock.error_ns)
                parts.append(Part(name, member.name, member.address, *place, told=member.told))
        return parts

    def _leave(self) -> None:
        """Let no more workers begin, and take what was recorded from their disks."""
        try:
            self._cluster.leave(self._token)
            for member in self._members.values():
                for address in member.holders[:1]:
                    self._cluster.ask_all(self._cluster.ground.discard, [address], self._token, member.place)
        except Exception as error:
            # Workers that do not hear of it delete it by themselves.
            self.told.append(f"the workers could not be left as they were: {error}")


def recorded(tracing: FleetTracing, seconds: float | None) -> giltrace.Recording | FleetTracing:
    """The context itself, or, with a time in `seconds`, what was recorded in it."""
    if seconds is None:
        return tracing
    with tracing as recording:
        time.sleep(seconds)
    return recording


def _called(member: Member) -> str:
    return f"{member.name or member.address} on {member.about['host']}"


def _unable(address: str, answer: Any) -> TargetError | None:
    """Why a worker cannot be recorded, by what it said of itself."""
    if isinstance(answer, dict) and answer["giltrace"] == giltrace.__version__:
        return None
    if isinstance(answer, dict):
        return TargetError(
            f"worker {address} has giltrace {answer['giltrace']}, here it is {giltrace.__version__}",
            f"install the same there: {installation.elsewhere(giltrace.__version__)}",
        )
    # Some versions tell of an error that is raised while a call is read in a text only.
    if "No module named 'giltrace" in str(answer):
        return TargetError(
            f"worker {address} has no giltrace", f"install it where the workers run: {installation.elsewhere()}"
        )
    return TargetError(f"worker {address} does not answer: {answer}", "see its log, and whether it is stuck")
