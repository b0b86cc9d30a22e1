"""A server: services, health and reflection behind one door; started, drained and stopped."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detmetrics.errors import InputError
from detmetrics.extras import needs

with needs("server"):  # what these ask for is the extra client alone
    import grpc
    import grpc.aio
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    from detmetrics_server.access import Door
    from detmetrics_server.core import Core
    from detmetrics_server.datasets import DatasetService, ServerService
    from detmetrics_server.evaluations import EvaluationService
    from detmetrics_server.messages import PACKAGE, POOL, SERVICES
    from detmetrics_server.pool import Pool
    from detmetrics_server.settings import Settings
    from detmetrics_server.storage import Storage
    from detmetrics_server.watching import log


class Server:
    """One server.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    port : int
        Where it listens, also where the settings say 0.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = 0
        self._server: Any = None
        self._stop_metrics: Callable[[], None] | None = None

    async def start(self) -> None:
        """Open the storage, sweep it, start the workers, go on with what was left, and listen.

        Raises
        ------
        InputError
            Where the storage is held by another server, or the address cannot be had.
        """
        settings = self.settings
        storage = Storage(Path(settings.storage), url=settings.database_url, durable=settings.durable)
        try:
            swept = await asyncio.to_thread(storage.sweep)
        except BaseException:
            storage.close()
            raise
        pool = Pool(
            settings.n_workers,
            settings.max_waiting,
            settings.timeout_s,
            settings.cache_bytes,
            settings.worker_memory_bytes,
        )
        self.core = Core(settings, storage, pool)
        options = [
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
        self._server = grpc.aio.server(
            interceptors=[Door(self.core)], options=options, maximum_concurrent_rpcs=settings.max_calls
        )
        self._health = health.aio.HealthServicer()
        self._evaluations = EvaluationService(self.core)
        services = (self._evaluations, DatasetService(self.core), ServerService(self.core))
        for name, service in zip(SERVICES, services, strict=True):
            self._server.add_generic_rpc_handlers((_handlers(name, service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [f"{PACKAGE}.{name}" for name in SERVICES]
        public = [health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection([*names, *public], self._server)
        try:
            self.port = self._listen()
            await pool.start()
            left = await self._evaluations.resume()
            if settings.metrics_address:
                self._stop_metrics = self.core.numbers.serve(settings.metrics_address)
            await self._server.start()
        except BaseException:
            pool.is_closed = True
            await self._evaluations.drain(0.0)
            await pool.close()
            storage.close()
            raise
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log("started", port=self.port, swept=swept, resumed=left, workers=pool.pids())

    def _listen(self) -> int:
        settings = self.settings
        try:
            if settings.tls_cert:
                pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes())
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
                credentials = grpc.ssl_server_credentials([pair])
                return int(self._server.add_secure_port(settings.address, credentials))
            return int(self._server.add_insecure_port(settings.address))
        except ssl.SSLError:
            raise InputError("tls_cert and tls_key", expected="a certificate and its key, PEM") from None
        except RuntimeError:
            raise InputError(
                f"cannot listen on {settings.address}: is another server there?",
                hint="stop it, or name another port: --address HOST:PORT",
            ) from None
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None

    async def stop(self, drain_s: float | None = None) -> None:
        """Refuse new calls, let those at work finish for a while, and end; what is left goes on at the next start."""
        drain_s = self.settings.drain_s if drain_s is None else drain_s
        end = time.monotonic() + drain_s
        log("stopping", drain_s=drain_s, waiting=self.core.pool.waiting, running=self.core.pool.running)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(drain_s)
        self.core.pool.is_closed = True
        await self.core.settle()  # gRPC does not wait until they have ended
        await self._evaluations.drain(max(end - time.monotonic(), 0.0))
        await self.core.pool.close()
        if self._stop_metrics is not None:
            await asyncio.to_thread(self._stop_metrics)
        self.core.storage.close()
        log("stopped")


def _handlers(name: str, service: Any) -> Any:
    """Make the handlers of a service from its description; requests stay bytes, which each rpc reads itself."""
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    described = POOL.FindServiceByName(f"{PACKAGE}.{name}")
    handlers = {
        method.name: makers[method.client_streaming, method.server_streaming](
            getattr(service, method.name), response_serializer=lambda message: message.SerializeToString()
        )
        for method in described.methods
    }
    return grpc.method_handlers_generic_handler(described.full_name, handlers)
