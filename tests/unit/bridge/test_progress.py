"""An offset is committable only when every record below it is stored, whatever the order of events."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.progress import Progress

PARTITIONS = st.sampled_from(["a", "b"])


class ProgressMachine(RuleBasedStateMachine):
    """Against a model that remembers every single record: reading, storing, splitting, committing, revoking.

    `read` is where the consumer stands, `log` what lies between committed and read: offset -> stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress[str] = Progress()
        self.read = {"a": 0, "b": 0}
        self.kept = {"a": 0, "b": 0}  # what Kafka has as committed
        self.batches: dict[str, dict[str, range]] = {"a": {}, "b": {}}
        self.unstored: dict[str, set[int]] = {"a": set(), "b": set()}
        self.number = 0

    def _name(self) -> str:
        self.number += 1
        return f"batch-{self.number}"

    @rule(partition=PARTITIONS, gap=st.integers(0, 3), count=st.integers(1, 8))
    def hand_over(self, partition: str, gap: int, count: int) -> None:
        first = self.read[partition] + gap  # compaction and transaction markers leave gaps
        name, records = self._name(), range(first, first + count)
        self.progress.handed_over(partition, name, records.stop)
        self.batches[partition][name] = records
        self.unstored[partition].update(records)
        self.read[partition] = records.stop

    @precondition(lambda self: any(self.batches.values()))
    @rule(data=st.data())
    def store(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from([p for p in self.batches if self.batches[p]]))
        name = data.draw(st.sampled_from(list(self.batches[partition])))
        self.progress.stored(partition, name)
        self.progress.stored(partition, name)  # a result may come twice
        self.unstored[partition] -= set(self.batches[partition].pop(name))

    @precondition(lambda self: any(len(r) > 1 for b in self.batches.values() for r in b.values()))
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        choices = [(p, n) for p, batches in self.batches.items() for n, r in batches.items() if len(r) > 1]
        partition, name = data.draw(st.sampled_from(choices))
        records = self.batches[partition].pop(name)
        middle = records.start + len(records) // 2
        parts = {self._name(): range(records.start, middle), self._name(): range(middle, records.stop)}
        self.progress.split(partition, name, [(part, r.stop) for part, r in parts.items()])
        self.batches[partition] |= parts

    @rule()
    def commit(self) -> None:
        for partition, offset in self.progress.to_commit().items():
            assert offset > self.kept[partition], "an offset never goes back, nor is committed twice"
            self.kept[partition] = offset
            self.progress.committed(partition, offset)
        assert self.progress.to_commit() == {}

    @rule(partition=PARTITIONS)
    def revoke_and_assign(self, partition: str) -> None:
        late = next(iter(self.batches[partition]), None)
        self.progress.forget(partition)
        if late is not None:
            self.progress.stored(partition, late)  # a result of the time before
        self.progress.committed(partition, 10_000)  # and an answer to a commit of then
        assert partition not in self.progress.to_commit()
        self.read[partition] = self.kept[partition]  # whoever has it now reads on from there
        self.batches[partition] = {}
        self.unstored[partition] = set()

    @invariant()
    def nothing_unstored_lies_below_what_may_be_committed(self) -> None:
        for partition, offset in self.progress.to_commit().items():
            assert all(record >= offset for record in self.unstored[partition])

    @invariant()
    def all_stored_means_all_committable(self) -> None:
        for partition, unstored in self.unstored.items():
            if not unstored and self.read[partition] > self.kept[partition]:
                assert self.progress.to_commit().get(partition) == self.read[partition]
                assert self.progress.open_batches(partition) == 0


ProgressMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestProgress = ProgressMachine.TestCase
