"""DatasetService and ServerService: what the rpcs do."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from detmetrics import __version__
from detmetrics.protocols import PROTOCOLS
from detmetrics_server import asking, jobs, messages
from detmetrics_server.core import Core
from detmetrics_server.uploads import Upload


class DatasetService:
    """The rpcs; every one gets the bytes of its request. Nothing of the truth is told but counts."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def UploadDataset(self, stream: AsyncIterator[bytes], context: Any) -> Any:
        """Store a data set that a worker could read."""
        with Upload(self._core, "UploadDatasetRequest", stream) as upload:
            return await self._received(upload)

    async def _received(self, upload: Upload) -> Any:
        core = self._core
        header = await upload.header()
        dataset_id = asking.dataset_id(header.dataset_id, "header.dataset_id")
        asking.payload(header.format, header.compression, is_truth=True)
        source = asking.text(header.file_name, "header.file_name") or "truth"
        request_id = asking.request_id(header.request_id)
        core.pool.check_room()
        spooled = core.storage.blobs.new()
        scratch = core.storage.blobs.spool / f"truth-{uuid.uuid4().hex}"
        payload = {"format": header.format, "compression": header.compression}
        try:
            await upload.body(spooled)
            await core.db(spooled.flush, durable=core.storage.blobs.durable)
            job = jobs.Payload(
                **payload,
                path=str(spooled.path),
                source=source,
                max_bytes=core.settings.max_unpacked_bytes,
                scratch=str(scratch),
            )
            found: jobs.Checked = await core.pool.run(jobs.Check(job), kill=True)
        except BaseException:
            await core.surely(spooled.close)
            raise
        row = {"id": dataset_id, "size_bytes": spooled.size, "payload": json.dumps(payload), **found._asdict()}

        def commit() -> dict[str, Any]:
            try:
                with core.storage.keeping() as keep:
                    row["sha256"] = keep(spooled)
                    return core.storage.add_dataset(row, same_is_fine=request_id is not None)
            finally:
                spooled.close()

        kept = await core.surely(commit)
        return messages.twin("UploadDatasetResponse")(dataset=_message(kept))

    async def GetDataset(self, data: bytes, context: Any) -> Any:
        """Give one data set."""
        request = messages.parse("GetDatasetRequest", data)
        row = await self._core.db(self._core.storage.dataset, asking.dataset(request.name, "name"))
        return messages.twin("GetDatasetResponse")(dataset=_message(row))

    async def ListDatasets(self, data: bytes, context: Any) -> Any:
        """List data sets."""
        request = messages.parse("ListDatasetsRequest", data)
        size = asking.page_size(request.page_size)
        after = asking.name_before(asking.page_state(request.page_token, "datasets"))
        rows = await self._core.db(self._core.storage.datasets, after, size + 1)
        token = asking.page_token(rows[size - 1]["id"], "datasets") if len(rows) > size else ""
        return messages.twin("ListDatasetsResponse")(
            datasets=[_message(row) for row in rows[:size]], next_page_token=token
        )

    async def DeleteDataset(self, data: bytes, context: Any) -> Any:
        """Delete a data set."""
        request = messages.parse("DeleteDatasetRequest", data)
        await self._core.db(self._core.storage.delete_dataset, asking.dataset(request.name, "name"))
        return messages.twin("DeleteDatasetResponse")()


class ServerService:
    """Says what the server is."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def GetServerInfo(self, data: bytes, context: Any) -> Any:
        """Give version, limits and protocols."""
        messages.parse("GetServerInfoRequest", data)
        settings = self._core.settings
        return messages.twin("GetServerInfoResponse")(
            version=__version__,
            protocols=PROTOCOLS,
            max_message_bytes=settings.max_message_bytes,
            max_upload_bytes=settings.max_upload_bytes,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            max_waiting=settings.max_waiting,
            workers=settings.n_workers,
            needs_token=await self._core.db(lambda: self._core.needs_token),
        )


def _message(row: dict[str, Any]) -> Any:
    columns = row["frame_columns"]
    message = messages.Dataset(
        name=f"datasets/{row['id']}",
        n_frames=row["n_frames"],
        n_boxes=row["n_boxes"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        frame_columns=json.loads(columns),
    )
    message.create_time.FromNanoseconds(row["created_ns"])
    return message
