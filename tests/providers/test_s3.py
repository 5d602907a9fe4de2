from __future__ import annotations

from typing import Any

import pytest

from mscfs.config.values import ProviderConfig
from mscfs.providers.base import StorageProvider
from mscfs.providers.s3 import S3Provider
from tests.emulators.s3 import S3Server
from tests.providers.contract import ProviderContract

pytestmark = pytest.mark.emulator


def opened(profile: dict[str, Any], **options: Any) -> S3Provider:
    credentials = profile.get("credentials_provider")
    return S3Provider(
        profile="lake",
        options=profile["storage_provider"]["options"] | options,
        credentials=ProviderConfig(**credentials) if credentials else None,
    )


class TestS3Provider(ProviderContract):
    @pytest.fixture
    def provider(self, s3_server: S3Server) -> StorageProvider:
        return opened(s3_server.new_bucket())


class TestS3ProviderWithoutNativeClient(ProviderContract):
    @pytest.fixture
    def provider(self, s3_server: S3Server) -> StorageProvider:
        return opened(s3_server.new_bucket(), rust_client=False)


class TestS3ProviderOnMoto(ProviderContract):
    @pytest.fixture
    def provider(self, moto_server: S3Server) -> StorageProvider:
        return opened(moto_server.new_bucket())
