"""An S3 server on the loopback, moto's, which keeps its buckets while it is stopped."""

import logging
import secrets
import socket
from typing import Any

KEY, SECRET = "AKIDLAB", "hush-hush"


class S3Server:
    """The server, in a thread of this process; `address` is what `AWS_ENDPOINT_URL` may be."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self._server: Any = None

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def bucket(self) -> str:
        """The name of a new one."""
        name = f"lab-{secrets.token_hex(4)}"
        self._client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-x-1"})
        return name

    def keys(self, bucket: str) -> list[str]:
        """The names of all files in a bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def content(self, bucket: str, key: str) -> bytes:
        return bytes(self._client().get_object(Bucket=bucket, Key=key)["Body"].read())

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._client().put_object(Bucket=bucket, Key=key, Body=content)

    def _client(self) -> Any:
        import boto3

        given = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "eu-x-1"}
        return boto3.client("s3", endpoint_url=self.address, **given)
