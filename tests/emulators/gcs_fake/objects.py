"""Buckets, objects and preconditions: what the service knows, without HTTP."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import google_crc32c

from .messages import Refusal

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")
SETTABLE = ("contentType", "cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "storageClass")


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def crc32c(data: bytes) -> str:
    return b64(google_crc32c.Checksum(data).digest())


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass(slots=True)
class StoredObject:
    bucket: str
    name: str
    data: bytes
    generation: int
    metageneration: int = 1
    md5: bytes | None = None
    """None for a composed object, as in the real service."""
    component_count: int | None = None
    crc32c: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    """The settable ones, under their JSON names."""
    metadata: dict[str, str] = field(default_factory=dict)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def json_etag(self) -> str:
        """Changes with the metadata, unlike the XML API's."""
        return b64(f"{self.generation}/{self.metageneration}".encode())

    @property
    def xml_etag(self) -> str:
        return self.md5.hex() if self.md5 else "-" + b64(f"{self.generation}".encode())

    def resource(self) -> dict[str, Any]:
        """The object as the JSON API shows it."""
        resource: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(len(self.data)),
            "crc32c": self.crc32c,
            "etag": self.json_etag,
            "timeCreated": timestamp(self.created),
            "updated": timestamp(self.updated),
            **self.properties,
        }
        if self.md5:
            resource["md5Hash"] = b64(self.md5)
        if self.component_count:
            resource["componentCount"] = self.component_count
        if self.metadata:
            resource["metadata"] = dict(self.metadata)
        return resource


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The conditions of a request on one object; None where the request sets none."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None
    etags: tuple[str, ...] = ()
    not_etags: tuple[str, ...] = ()

    @classmethod
    def from_query(cls, query: Mapping[str, str], prefix: str = "if") -> Preconditions:
        """Of a JSON request; `ifSource` gives those on the source of a copy."""
        return cls(
            generation=_number(query, f"{prefix}GenerationMatch"),
            not_generation=_number(query, f"{prefix}GenerationNotMatch"),
            metageneration=_number(query, f"{prefix}MetagenerationMatch"),
            not_metageneration=_number(query, f"{prefix}MetagenerationNotMatch"),
        )

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Preconditions:
        """Of an XML request."""
        return cls(
            generation=_number(headers, "x-goog-if-generation-match"),
            metageneration=_number(headers, "x-goog-if-metageneration-match"),
            etags=_etags(headers.get("if-match")),
            not_etags=_etags(headers.get("if-none-match")),
        )

    def check(self, found: StoredObject | None, *, reading: bool = False) -> None:
        """Refuse with 412, or with 304 where a read finds what the client already has."""
        generation = found.generation if found else 0
        metageneration = found.metageneration if found else 0
        if self.generation is not None and self.generation != generation:
            raise _unmet("ifGenerationMatch")
        if self.metageneration is not None and self.metageneration != metageneration:
            raise _unmet("ifMetagenerationMatch")
        if self.etags and (found is None or not {"*", found.xml_etag}.intersection(self.etags)):
            raise _unmet("If-Match")
        unchanged = (
            self.not_generation == generation
            or self.not_metageneration == metageneration
            or bool(found and {"*", found.xml_etag}.intersection(self.not_etags))
        )
        if unchanged:
            raise Refusal(304, "notModified", "Not Modified") if reading else _unmet("ifGenerationNotMatch")


@dataclass(slots=True)
class Bucket:
    name: str
    objects: dict[str, StoredObject] = field(default_factory=dict)
    _names: list[bytes] = field(default_factory=list)
    """Sorted: the service lists in the order of the names' UTF-8 bytes."""

    def find(self, name: str, generation: str | None = None) -> StoredObject:
        found = self.objects.get(name)
        if found is None or (generation is not None and str(found.generation) != generation):
            raise Refusal(404, "notFound", f"No such object: {self.name}/{name}")
        return found

    def store(self, new: StoredObject) -> StoredObject:
        if new.name not in self.objects:
            insort(self._names, new.name.encode())
        self.objects[new.name] = new
        return new

    def remove(self, name: str) -> None:
        del self.objects[name]
        encoded = name.encode()
        del self._names[bisect_left(self._names, encoded)]

    def walk(self, prefix: str, delimiter: str, start: bytes) -> Iterator[tuple[bytes, StoredObject | str]]:
        """Objects and common prefixes from `start` on, each with the position it stands at."""
        encoded_prefix = prefix.encode()
        position = bisect_left(self._names, max(start, encoded_prefix))
        while position < len(self._names):
            encoded = self._names[position]
            if not encoded.startswith(encoded_prefix):
                return
            name = encoded.decode()
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                yield encoded, self.objects[name]
                position += 1
            else:
                common = name[: cut + len(delimiter)]
                yield encoded, common
                position = bisect_left(self._names, after_prefix(common))


class Service:
    """Everything that is stored."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self._last_generation = 0

    def bucket(self, name: str) -> Bucket:
        try:
            return self.buckets[name]
        except KeyError:
            raise Refusal(404, "noSuchBucket", "The specified bucket does not exist.") from None

    def create_bucket(self, name: str) -> Bucket:
        if not _BUCKET_NAME.match(name):
            raise Refusal(400, "invalid", f"Invalid bucket name: '{name}'")
        if name in self.buckets:
            raise Refusal(409, "conflict", "You already own this bucket. Please select another name.")
        self.buckets[name] = Bucket(name)
        return self.buckets[name]

    def write(
        self,
        bucket: str,
        name: str,
        data: bytes,
        conditions: Preconditions,
        resource: Mapping[str, Any],
        *,
        components: int | None = None,
    ) -> StoredObject:
        """Store new content. `resource` gives the settable properties, metadata and expected checksums."""
        holder = self.bucket(bucket)
        check_name(name)
        conditions.check(holder.objects.get(name))
        md5 = None if components else hashlib.md5(data).digest()
        checksum = crc32c(data)
        for field_name, actual in (("md5Hash", b64(md5) if md5 else None), ("crc32c", checksum)):
            if resource.get(field_name) not in (None, actual):
                raise Refusal(400, "invalid", f"Provided {field_name} does not match the data received.")
        return holder.store(
            StoredObject(
                bucket=bucket,
                name=name,
                data=data,
                generation=self.next_generation(),
                md5=md5,
                component_count=components,
                crc32c=checksum,
                properties={key: resource[key] for key in SETTABLE if resource.get(key)},
                metadata=dict(resource.get("metadata") or {}),
            )
        )

    def next_generation(self) -> int:
        """Microseconds since the epoch, always growing."""
        self._last_generation = max(self._last_generation + 1, time.time_ns() // 1000)
        return self._last_generation


def check_name(name: str) -> None:
    """The service's rules for object names."""
    valid = 0 < len(name.encode()) <= 1024 and not {"\r", "\n"}.intersection(name) and name not in (".", "..")
    if not valid or name.startswith(".well-known/acme-challenge/"):
        raise Refusal(400, "invalid", f"Invalid object name: '{name[:80]}'")


def after_prefix(prefix: str) -> bytes:
    """The first position behind all names that start with `prefix`."""
    encoded = prefix.encode()
    return encoded[:-1] + bytes([encoded[-1] + 1])


def _number(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    try:
        return int(values[name])
    except ValueError:
        raise Refusal(400, "invalid", f"Invalid value for {name}") from None


def _etags(header: str | None) -> tuple[str, ...]:
    return tuple(part.strip().strip('"') for part in header.split(",")) if header else ()


def _unmet(condition: str) -> Refusal:
    return Refusal(
        412, "conditionNotMet", f"At least one of the pre-conditions you specified did not hold ({condition})."
    )
