"""A Kafka cluster of three brokers, which are controllers too; its topics have three replicas."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from bootstrap.localstack.ports import LOOPBACK, free_port
from bootstrap.localstack.process import ServerProcess
from bootstrap.localstack.stack import cluster_id, kafka_command
from bridge.kafka import clients
from tests.programs import ROOT

_NODES = (1, 2, 3)
_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
min.insync.replicas=2
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
"""


class ThreeBrokers:
    """The brokers by node id. A context manager; start it in the main thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports = {node: free_port() for node in _NODES}
        self._controllers = {node: free_port() for node in _NODES}
        self.servers: dict[int, ServerProcess] = {}

    @property
    def addresses(self) -> str:
        """KAFKA_BROKERS."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self.ports.values())

    def __enter__(self) -> "ThreeBrokers":
        cluster = cluster_id()
        command = kafka_command(ROOT / ".local" / "kafka-4.4.0", heap_mb=256)
        voters = ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in self._controllers.items())
        for node in _NODES:
            properties = self._directory / f"kafka-{node}.properties"
            places = {"port": self.ports[node], "controller": self._controllers[node], "voters": voters}
            properties.write_text(_PROPERTIES.format(node=node, data=self._directory / f"kafka-{node}", **places))
            form = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(properties)]
            subprocess.run([*command, *form], check=True, capture_output=True)
            address = f"{LOOPBACK}:{self.ports[node]}"
            self.servers[node] = ServerProcess(
                f"kafka-{node}",
                [*command, "kafka.Kafka", str(properties)],
                self._directory / f"kafka-{node}.log",
                lambda address=address: clients.responds(address),  # type: ignore[misc]
            )
            self.servers[node].start()
        for server in self.servers.values():
            server.wait()
        return self

    def kill(self, nodes: Sequence[int]) -> None:
        """End brokers at once, as a crash would."""
        for node in nodes:
            self.servers[node].kill()

    def restart(self, nodes: Sequence[int]) -> None:
        """Start killed brokers again, all before waiting for one: they need each other to choose a controller."""
        for node in nodes:
            self.servers[node].start()
        for node in nodes:
            self.servers[node].wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ServerProcess.kill, self.servers.values()))
