"""The peers. rclone and s3fs come from Debian; the others are run when they are on PATH."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.bench.server import ACCESS_KEY, REGION, SECRET_KEY
from tests.bench.systems.base import ForegroundSystem, Place

Command = Sequence[str | os.PathLike[str]]


class Rclone(ForegroundSystem):
    """rclone mount."""

    name = "rclone"
    install = "apt-get install --no-install-recommends rclone"
    settings = "defaults; --vfs-cache-mode full where the disk cache is measured"

    def prepare(self, place: Place) -> None:
        (place.directory / "rclone.conf").write_text(
            "[bench]\ntype = s3\nprovider = Other\nforce_path_style = true\n"
            f"endpoint = {place.url}\nregion = {REGION}\n"
            f"access_key_id = {ACCESS_KEY}\nsecret_access_key = {SECRET_KEY}\n"
        )

    def command(self, place: Place) -> Command:
        options = ["--config", str(place.directory / "rclone.conf"), "--cache-dir", str(place.made("cache"))]
        if place.disk_cache:
            options += ["--vfs-cache-mode", "full"]
        return ["rclone", "mount", f"bench:{place.bucket}", place.mountpoint, *options]


class S3fs(ForegroundSystem):
    """s3fs."""

    name = "s3fs"
    install = "apt-get install --no-install-recommends s3fs"
    settings = "defaults with parallel_count=16; use_cache where the disk cache is measured"

    def prepare(self, place: Place) -> None:
        secret = place.directory / "passwd-s3fs"
        secret.touch(0o600)
        secret.write_text(f"{ACCESS_KEY}:{SECRET_KEY}")

    def command(self, place: Place) -> Command:
        options = [
            f"passwd_file={place.directory}/passwd-s3fs",
            f"url={place.url}",
            f"tmpdir={place.made('tmp')}",
            "use_path_request_style",
            "parallel_count=16",
        ]
        if place.disk_cache:
            options.append(f"use_cache={place.made('cache')}")
        return ["s3fs", place.bucket, place.mountpoint, "-f", "-o", ",".join(options)]


class MountS3(ForegroundSystem):
    """mountpoint-s3."""

    name = "mount-s3"
    install = "the package of Mountpoint for Amazon S3"
    settings = "defaults with --allow-delete --allow-overwrite; --cache where the disk cache is measured"

    def command(self, place: Place) -> Command:
        options = ["--endpoint-url", place.url, "--region", REGION, "--force-path-style", "--foreground"]
        options += ["--allow-delete", "--allow-overwrite"]
        if place.disk_cache:
            options += ["--cache", str(place.made("cache"))]
        return ["mount-s3", place.bucket, place.mountpoint, *options]


class Geesefs(ForegroundSystem):
    """GeeseFS."""

    name = "geesefs"
    install = "a release of GeeseFS"
    settings = "defaults; --cache where the disk cache is measured"

    def command(self, place: Place) -> Command:
        options = ["-f", "--endpoint", place.url, "--region", REGION, "--no-detect"]
        if place.disk_cache:
            options += ["--cache", str(place.made("cache"))]
        return ["geesefs", *options, place.bucket, place.mountpoint]


class Msfs(ForegroundSystem):
    """The Go file system of the multi-storage client. It mounts all profiles of its file below one directory."""

    name = "msfs"
    install = "a release of the multi-storage client's file system"

    def prepare(self, place: Place) -> None:
        options = {"base_path": place.bucket, "endpoint_url": place.url, "region_name": REGION}
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        profile = {
            "storage_provider": {"type": "s3", "options": options},
            "credentials_provider": {"type": "S3Credentials", "options": keys},
        }
        document = {"profiles": {"bench": profile}, "posix": {"mountpoint": str(place.mountpoint)}}
        (place.directory / "msfs.json").write_text(json.dumps(document))

    def command(self, place: Place) -> Command:
        return ["msfs", place.directory / "msfs.json"]

    def mounted_path(self, place: Place) -> Path:
        return place.mountpoint / "bench"


class Gcsfuse(ForegroundSystem):
    """gcsfuse: its storage is Google's, which this server does not speak, so that it is named with its own error."""

    name = "gcsfuse"
    install = "the package of Cloud Storage FUSE"

    def command(self, place: Place) -> Command:
        options = ["--foreground", "--anonymous-access", "--custom-endpoint", place.url]
        return ["gcsfuse", *options, place.bucket, place.mountpoint]


class Juicefs(ForegroundSystem):
    """JuiceFS keeps files in a layout of its own: it can write here, and has nothing to read of what is prepared."""

    name = "juicefs"
    install = "a release of JuiceFS"
    settings = "metadata in SQLite; only the works that write"

    def command(self, place: Place) -> Command:
        database = f"sqlite3://{place.directory}/meta.db"
        storage = (
            f"--storage s3 --bucket {place.url}/{place.bucket} --access-key {ACCESS_KEY} --secret-key {SECRET_KEY}"
        )
        cache = place.made("cache")
        script = (
            f"juicefs format --no-update {storage} {database} bench"
            f" && exec juicefs mount --foreground --cache-dir {cache} {database} {place.mountpoint}"
        )
        return ["sh", "-c", script]
