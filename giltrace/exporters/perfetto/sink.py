"""Where packets go: the file, with the names that it interns and the tracks that it describes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, BinaryIO

import numpy as np

from giltrace.exporters.perfetto.packets import Bytes, Ints
from giltrace.exporters.perfetto.protos import framed, packet, pb

_NAMES_PER_PACKET = 4096


class Sink:
    """A trace being written. Tracks and names are described before the first packet that uses them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tracks: dict[Hashable, int] = {}
        self._interned: dict[str, dict[str, int]] = {}

    def write(self, *packets: Any) -> None:
        """Append protobuf packets."""
        self.write_raw(framed(*packets))

    def write_raw(self, data: Bytes | bytes) -> None:
        """Append packets that are already bytes, framing included."""
        self._file.write(data.data if isinstance(data, np.ndarray) else data)

    def track(self, key: Hashable, parent: int = 0, **fields: Any) -> int:
        """Return the uuid of the track known as `key`; it is described when first asked for.

        `fields` are those of the track descriptor. A track with a `rank` keeps its place among its siblings, and never
        merges with one of the same name.
        """
        uuid = self._tracks.get(key)
        if uuid is None:
            uuid = self._tracks[key] = len(self._tracks) + 1
            rank = fields.pop("rank", None)
            descriptor = pb.TrackDescriptor(
                uuid=uuid,
                child_ordering=pb.TrackDescriptor.EXPLICIT,
                sibling_merge_behavior=pb.TrackDescriptor.SIBLING_MERGE_BEHAVIOR_NONE,
                **fields,
            )
            if parent:
                descriptor.parent_uuid = parent
            if rank is not None:
                descriptor.sibling_order_rank = rank
            self.write(packet(track_descriptor=descriptor))
        return uuid

    def names(self, names: Iterable[str]) -> Ints:
        """Intern names of slices; their ids, shape (n,)."""
        return self._intern("event_names", "name", names)

    def categories(self, names: Iterable[str]) -> Ints:
        """Intern categories of slices; their ids, shape (n,)."""
        return self._intern("event_categories", "name", names)

    def argument_names(self, names: Iterable[str]) -> Ints:
        """Intern names of debug annotations; their ids, shape (n,)."""
        return self._intern("debug_annotation_names", "name", names)

    def argument_values(self, values: Iterable[str]) -> Ints:
        """Intern string values of debug annotations; their ids, shape (n,)."""
        return self._intern("debug_annotation_string_values", "str", values)

    def colours(self, correlation_ids: Iterable[str]) -> Ints:
        """Intern correlation ids; their ids, shape (n,)."""
        return self._intern("correlation_id_str", "str", correlation_ids)

    def _intern(self, table: str, field: str, values: Iterable[str]) -> Ints:
        known = self._interned.setdefault(table, {})
        wanted = list(values)
        new = [value for value in dict.fromkeys(wanted) if value not in known]
        for at in range(0, len(new), _NAMES_PER_PACKET):
            interned = pb.InternedData()
            for value in new[at : at + _NAMES_PER_PACKET]:
                known[value] = len(known) + 1
                text = value.encode(errors="replace")
                entry = getattr(interned, table).add(iid=known[value])
                setattr(entry, field, text if field == "str" else text.decode())
            self.write(packet(interned_data=interned))
        return np.array([known[value] for value in wanted], np.int64)

    def annotation(self, name: str, **value: Any) -> Any:
        """Make a debug annotation; `value` is one of its typed value fields."""
        return pb.DebugAnnotation(name_iid=int(self.argument_names([name])[0]), **value)

    def text(self, name: str, text: str) -> Any:
        """Make a debug annotation that says one of a few texts."""
        return self.annotation(name, string_value_iid=int(self.argument_values([text])[0]))
