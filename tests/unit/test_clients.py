"""Where records without key go."""

from kafka.partitioner import DefaultPartitioner

from bridge.clients import Sticky

ALL = [0, 1, 2, 3]


def test_records_without_key_stay_together_for_a_moment() -> None:
    sticky = Sticky(seconds=600)
    assert len({sticky(None, ALL, ALL) for _ in range(100)}) == 1


def test_in_time_all_partitions_get_their_share() -> None:
    sticky = Sticky(seconds=0)
    assert {sticky(None, ALL, ALL) for _ in range(500)} == set(ALL)


def test_a_partition_without_leader_is_left_at_once() -> None:
    sticky = Sticky(seconds=600)
    chosen = sticky(None, ALL, ALL)
    rest = [number for number in ALL if number != chosen]
    assert sticky(None, ALL, rest) in rest
    assert sticky(None, ALL, []) in ALL


def test_a_key_has_the_partition_that_all_clients_of_kafka_give_it() -> None:
    sticky = Sticky(seconds=600)
    keys = [f"key-{number}".encode() for number in range(50)]
    assert [sticky(key, ALL, ALL) for key in keys] == [DefaultPartitioner()(key, ALL, ALL) for key in keys]
